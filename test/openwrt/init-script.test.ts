import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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

await t.test('a restart says so to the peers, and waits until they were told', async (t) => {
  const uci = options({ enabled: '1' });
  const { calls } = run(t, 'restart', { uci, pids: ['17'], alive: '17', ends: true });
  t.same(calls.slice(0, 4), [
    'procd_send_signal culvert * USR2',
    'sleep 1',
    'procd_kill culvert',
    'procd_set_config_changed firewall',
  ]);
  t.ok(calls.slice(4).includes('procd_open_instance'));
});

await t.test(
  'a daemon that does not end is left to procd before that starts it anew',
  async (t) => {
    const uci = options({ enabled: '1' });
    const { calls } = run(t, 'restart', { uci, pids: ['17'], alive: '17' });
    t.ok(calls.filter((call) => call === 'sleep 1').length < 5, 'the respawn time');
    t.ok(calls.indexOf('procd_kill culvert') < calls.indexOf('procd_open_instance'));
  },
);

await t.test('a restart of what does not run just starts it', async (t) => {
  const { calls } = run(t, 'restart', { uci: options({ enabled: '1' }) });
  t.equal(calls[0], 'procd_kill culvert');
  t.ok(calls.includes('procd_open_instance'));
});

await t.test('an upgrade is a restart to the peers, a stop is not', async (t) => {
  const stop = (env: Record<string, string>) =>
    run(t, 'stop', { uci: options({ enabled: '1' }), pids: ['17'], env }).calls;
  t.equal(stop({ PKG_UPGRADE: '1' })[0], 'procd_send_signal culvert * USR2');
  t.equal(stop({})[0], 'procd_kill culvert', 'procd says TERM, which is: we leave');
  const started = (env: Record<string, string>, pids: string[]) =>
    run(t, 'start', { uci: options({ enabled: '1' }), pids, env }).calls[0];
  const upgrade = { PKG_UPGRADE: '1' };
  t.equal(started(upgrade, ['17']), 'procd_send_signal culvert * USR2', 'apk does not stop it');
  t.equal(started(upgrade, []), 'procd_open_instance', 'opkg did');
  t.equal(started({}, ['17']), 'procd_open_instance');
});

await t.test('a drained daemon is not started anew, one that was not drained stays', async (t) => {
  const drain = (prog: string) =>
    run(t, `PROG=${prog}; drain`, { uci: options({ enabled: '1' }) }).calls;
  t.ok(drain('true').includes('procd_kill culvert'));
  t.same(drain('false'), []);
});

await t.test('the port for streams is opened where the configuration names one', async (t) => {
  const config = `${t.testdir()}/culvert.json`;
  const rules = () => {
    const { calls } = run(t, 'start', { uci: options({ enabled: '1', config }) });
    return calls.slice(calls.indexOf('procd_open_data'), calls.indexOf('procd_close_data') + 1);
  };
  writeFileSync(config, '{"interface": {}, "streams": {"listenPort": 8443}}');
  const [open, array, ...rest] = firewallRule(51820);
  const close = rest.slice(-2);
  t.same(rules(), [
    open,
    array,
    ...rest.slice(0, -2),
    ...ruleObject('Allow-Culvert-Streams', 'tcp', 8443),
    ...close,
  ]);
  writeFileSync(config, '{"interface": {}, "streams": {"listenPort": 0}}');
  t.same(rules(), firewallRule(51820), '0 is off');
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
  options: {
    uci: string;
    pids?: string[];
    node?: string;
    /** The pid of a process that runs, and whether it ends while it is waited for. */
    alive?: string;
    ends?: boolean;
    env?: Record<string, string>;
  },
): { calls: readonly string[]; command: string } {
  const { uci, pids = [], node = process.execPath, alive, ends = false, env = {} } = options;
  const folder = mkdtempSync(`${tmpdir()}/culvert-init-`);
  t.teardown(() => rmSync(folder, { recursive: true }));
  writeFileSync(`${folder}/uci`, uci);
  writeFileSync(`${folder}/pids`, pids.map((pid) => `${pid}\n`).join(''));
  writeFileSync(
    `${folder}/script`,
    readFileSync('rootfs/etc/init.d/culvert', 'utf8')
      .replaceAll('/usr/bin/node', node)
      .replaceAll('/proc/', `${folder}/proc/`),
  );
  const running = `${folder}/proc/${alive ?? ''}`;
  mkdirSync(running, { recursive: true });
  const program = `. test/openwrt/stand-ins.sh; . ${folder}/script; ${action}`;
  const { stdout, stderr } = spawnSync('busybox', ['ash', '-c', program], {
    encoding: 'utf8',
    env: {
      ...process.env,
      ...env,
      UCI_FILE: `${folder}/uci`,
      PIDS: `${folder}/pids`,
      ENDING: ends ? running : '',
    },
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
    ...ruleObject('Allow-Culvert', 'udp', port),
    'json_close_array',
    'procd_close_data',
  ];
}

function ruleObject(name: string, protocol: string, port: number): readonly string[] {
  return [
    'json_add_object',
    'json_add_string type rule',
    `json_add_string name ${name}`,
    'json_add_string src *',
    `json_add_string proto ${protocol}`,
    `json_add_string dest_port ${port}`,
    'json_add_string target ACCEPT',
    'json_close_object',
  ];
}
