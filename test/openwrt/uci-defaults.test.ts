import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';

await t.test('a router with a firewall gets a zone for the tunnel', async (t) => {
  const { status, changes } = run(t, { hasFirewall: true, hasZone: false });
  t.equal(status, 0);
  for (const line of changes) {
    t.match(line, /^((set|add_list) firewall\.\w+(\.\w+)?='?[^']+'?|commit firewall)$/);
  }
  for (const line of [
    'set firewall.culvert=zone',
    "add_list firewall.culvert.device='culvert0'",
    "set firewall.culvert.input='REJECT'",
    "set firewall.culvert_to_lan.src='culvert'",
    "set firewall.culvert_to_lan.dest='lan'",
  ]) {
    t.ok(changes.includes(line), line);
  }
  t.equal(changes.at(-1), 'commit firewall');
});

await t.test('a zone that is there already stays as it is', async (t) => {
  t.same(run(t, { hasFirewall: true, hasZone: true }), { status: 0, changes: [] });
});

await t.test('without a firewall there is nothing to do', async (t) => {
  t.same(run(t, { hasFirewall: false, hasZone: false }), { status: 0, changes: [] });
});

/** Runs the script under busybox's shell with a stand-in for uci. Returns what it fed to it. */
function run(
  t: Test,
  { hasFirewall, hasZone }: { hasFirewall: boolean; hasZone: boolean },
): { status: number | null; changes: readonly string[] } {
  const folder = t.testdir({ changes: '', ...(hasFirewall ? { firewall: '' } : {}) });
  const script = readFileSync('rootfs/etc/uci-defaults/60-culvert', 'utf8');
  writeFileSync(
    `${folder}/script`,
    `uci() {
       case "$*" in
         '-q get firewall.culvert') return ${hasZone ? 0 : 1} ;;
         '-q batch') cat >> ${folder}/changes ;;
         *) echo "unexpected: uci $*" >&2; exit 9 ;;
       esac
     }
     ${script.replaceAll('/etc/config/firewall', `${folder}/firewall`)}`,
  );
  const { status, stderr } = spawnSync('busybox', ['ash', '-u', `${folder}/script`], {
    encoding: 'utf8',
  });
  t.equal(stderr, '');
  const changes = readFileSync(`${folder}/changes`, 'utf8').split('\n').filter(Boolean);
  return { status, changes };
}
