import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import t, { type Test } from 'tap';

const shipped = readFileSync('rootfs/etc/config/culvert', 'utf8');

await t.test('as shipped it is disabled and starts nothing', async (t) => {
  const { calls } = run(t, 'start', { uci: shipped });
  t.same(calls, ['procd_set_config_changed firewall']);
});

await t.test('enabled, it runs the daemon on its configuration, for ever', async (t) => {
  const { calls } = run(t, 'start', { uci: shipped.replace("enabled '0'", "enabled '1'") });
  t.same(calls, [
    'procd_open_instance',
    'procd_set_param command /usr/bin/culvert run --config /etc/culvert/culvert.json ' +
      '--state-dir /etc/culvert --socket /var/run/culvert.sock',
    'procd_set_param respawn 3600 5 0',
    'procd_set_param term_timeout 10',
    'procd_set_param limits nofile=4096 4096',
    'procd_set_param stdout 1',
    'procd_set_param stderr 1',
    'procd_set_param file /usr/lib/culvert/culvert.cjs',
    ...firewallRule(51820),
    'procd_close_instance',
    'procd_set_config_changed firewall',
  ]);
});

await t.test('in a fleet it runs the daemon on the bootstrap file', async (t) => {
  const { command } = run(t, 'start', { uci: options({ enabled: '1', mode: 'fleet' }) });
  t.match(command, 'run --bootstrap /etc/culvert/bootstrap.json --state-dir /etc/culvert');
});

await t.test('in a fleet it opens the port that the bootstrap names', async (t) => {
  const bootstrap = `${t.testdir()}/bootstrap.json`;
  const uci = options({ enabled: '1', mode: 'fleet', bootstrap });
  const opened = () => run(t, 'start', { uci }).calls.filter((call) => call.includes('dest_port'));
  writeFileSync(bootstrap, '{"fleet": "shops", "interface": {"listenPort": 4500}}');
  t.same(opened(), ['json_add_string dest_port 4500']);
  writeFileSync(bootstrap, '{"fleet": "shops"}');
  t.same(opened(), ['json_add_string dest_port 51820']);
});

await t.test('the port that the configuration names is opened', async (t) => {
  const config = `${t.testdir()}/culvert.json`;
  writeFileSync(config, '{"interface": {"listenPort": 4500}}');
  const { calls, command } = run(t, 'start', {
    uci: options({ enabled: '1', config, state_dir: '/mnt/culvert' }),
  });
  t.match(command, `run --config ${config} --state-dir /mnt/culvert`);
  t.same(calls.slice(-firewallRule(4500).length - 2, -2), firewallRule(4500));
  writeFileSync(config, 'not JSON at all');
  t.ok(
    run(t, 'start', { uci: options({ enabled: '1', config }) }).calls.includes(
      'json_add_string dest_port 51820',
    ),
    'what the daemon will refuse does not stop the script',
  );
});

await t.test('options that make no sense give way to defaults, never to no daemon', async (t) => {
  const uci = options({ enabled: '1', mode: 'fleeet', state_dir: '', config: '' });
  t.match(run(t, 'start', { uci }).command, 'run --config /etc/culvert/culvert.json');
});

await t.test('without Node.js it says so and starts nothing', async (t) => {
  const uci = options({ enabled: '1' });
  const { calls } = run(t, 'start', { uci, node: '/nonexistent/node' });
  t.match(calls[0], /^logger -t culvert -p daemon.err no Node.js/);
  t.notOk(calls.includes('procd_open_instance'));
});

await t.test('reload tells a daemon that keeps running to read its file again', async (t) => {
  const uci = options({ enabled: '1' });
  const reload = (...pids: string[]) => run(t, 'reload_service', { uci, pids }).calls;
  t.ok(reload('17', '17').includes('procd_send_signal culvert * HUP'));
  t.notOk(
    reload('17', '18').some((call) => call.startsWith('procd_send_signal')),
    'restarted',
  );
  t.ok(reload('17', '17').includes('procd_open_instance'), 'procd is shown the instance');
});

await t.test('a change of the UCI file reloads, and UCI is told what is valid', async (t) => {
  const { calls } = run(t, 'service_triggers', { uci: shipped });
  t.equal(calls[0], 'procd_add_reload_trigger culvert');
  t.match(calls[1], /^validate culvert culvert .*enabled:bool:0 mode:or\("standalone", "fleet"\)/);
});

/** Runs a function of the init script under busybox's shell. Returns what it told procd. */
function run(
  t: Test,
  action: string,
  { uci, pids = [], node = process.execPath }: { uci: string; pids?: string[]; node?: string },
): { calls: readonly string[]; command: string } {
  const folder = mkdtempSync(`${tmpdir()}/culvert-init-`);
  t.teardown(() => rmSync(folder, { recursive: true }));
  writeFileSync(`${folder}/uci`, uci);
  writeFileSync(`${folder}/pids`, pids.map((pid) => `${pid}\n`).join(''));
  writeFileSync(
    `${folder}/script`,
    readFileSync('rootfs/etc/init.d/culvert', 'utf8').replaceAll('/usr/bin/node', node),
  );
  const program = `. test/openwrt/stand-ins.sh; . ${folder}/script; ${action}`;
  const { stdout, stderr } = spawnSync('busybox', ['ash', '-c', program], {
    encoding: 'utf8',
    env: { ...process.env, UCI_FILE: `${folder}/uci`, PIDS: `${folder}/pids` },
  });
  t.equal(stderr, '');
  const calls = stdout.split('\n').slice(0, -1);
  return { calls, command: calls.find((call) => call.includes('param command')) ?? '' };
}

function options(values: Record<string, string>): string {
  const lines = Object.entries(values).map(([name, value]) => `\toption ${name} '${value}'\n`);
  return `config culvert 'settings'\n${lines.join('')}`;
}

function firewallRule(port: number): readonly string[] {
  return [
    'procd_open_data',
    'json_add_array firewall',
    'json_add_object',
    'json_add_string type rule',
    'json_add_string name Allow-Culvert',
    'json_add_string src *',
    'json_add_string proto udp',
    `json_add_string dest_port ${port}`,
    'json_add_string target ACCEPT',
    'json_close_object',
    'json_close_array',
    'procd_close_data',
  ];
}
