import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import t from 'tap';
import { Lab, whyNoLab } from '../lab/namespaces.ts';

/**
 * The package as it runs once installed: its files are laid over this machine's in a mount namespace
 * of their own (an overlay, which is gone with it), the daemon starts there as the init script starts
 * it, in an empty network namespace.
 */
const skip = whyNoLab();
const CONFIGURATION = '{"schema":1,"interface":{"addresses":["100.64.0.1/11"]},"peers":[]}';

await t.test(
  'the installed package runs its daemon and answers the command',
  { skip },
  async (t) => {
    const folder = mkdtempSync(`${tmpdir()}/culvert-installed-`);
    t.teardown(() => rmSync(folder, { recursive: true }));
    const lab = await Lab.create('installed');
    t.teardown(() => lab.destroy());
    await lab.namespace('router');

    const daemon = lab.spawn('router', ['unshare', '-m', 'sh', '-ec', installAndRun(folder)]);
    const first = await daemon.waitFor(/"severity"/, 20_000);
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
    t.match(JSON.parse(first.input ?? ''), { version }, 'the first line names the version');
    await daemon.waitFor(/configuration applied/, 10_000);

    const inside = (...command: string[]) =>
      lab.exec('router', [
        'nsenter',
        `--target=${daemon.pid}`,
        '--mount',
        '--root',
        '--wd=/',
        ...command,
      ]);
    const answer = await inside('/usr/bin/culvert', 'version');
    t.equal(answer.code, 0, answer.stderr);
    t.match(answer.stdout, version);
    const status = await inside('/usr/bin/culvert', 'status', '--json');
    t.match(JSON.parse(status.stdout), { phase: 'running', interface: { name: 'culvert0' } });
    t.match(await lab.ip('router', 'address show culvert0'), '100.64.0.1/11');
    const modes = await inside('sh', '-c', 'stat -c "%a %n" /etc/culvert/*.key');
    t.match(modes.stdout, /^(600 \S+\n)+$/, 'private keys are for root alone');

    t.equal(await daemon.stop(), 0, 'SIGTERM ends it well');
    t.notMatch(await lab.ip('router', 'link show'), 'culvert0', 'its interface is gone');
    t.notOk(existsSync('/usr/lib/culvert'), 'this machine is as it was');
  },
);

/** The shell script that makes the package, lays it over this machine's files, and starts it. */
function installAndRun(folder: string): string {
  const output = execFileSync(process.execPath, ['openwrt/build/package.mjs', folder], {
    encoding: 'utf8',
  });
  const [, command = ''] = /procd_set_param command (.*)/.exec(initScript()) ?? [];
  return `
    mkdir ${folder}/layers ${folder}/root
    mount -t tmpfs tmpfs ${folder}/layers
    cd ${folder}/layers
    mkdir package changes work
    tar -xzOf ${output.split(' ')[0]} ./data.tar.gz | tar -xz -C package
    # /lib is a folder on OpenWrt, and a link to /usr/lib here.
    cp -r package/lib package/usr
    rm -r package/lib
    [ -x /usr/bin/node ] || ln -s ${process.execPath} package/usr/lib/culvert/node
    mkdir package/etc/culvert
    echo '${CONFIGURATION}' > package/etc/culvert/culvert.json
    mount -t overlay overlay -o lowerdir=package:/,upperdir=changes,workdir=work ${folder}/root
    cd ${folder}/root
    mount --rbind /dev dev
    mount --rbind /proc proc
    mount -t tmpfs tmpfs run
    PROG=/usr/bin/culvert SOCKET=/var/run/culvert.sock
    config=--config file=/etc/culvert/culvert.json state_dir=/etc/culvert
    exec chroot . ${command}
  `;
}

function initScript(): string {
  return readFileSync('rootfs/etc/init.d/culvert', 'utf8');
}
