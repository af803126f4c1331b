import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { eventually } from '../lab/daemon.ts';
import { whyNoLab, type Running } from '../lab/namespaces.ts';
import { TwoSites } from '../lab/two-sites.ts';

/** What a running daemon makes of another configuration: SIGHUP reads the file again. */
const skip = whyNoLab();

const HOLD_PORT = `
  const socket = require('node:dgram').createSocket('udp4');
  socket.bind(51999, '0.0.0.0', () => console.log('held'));`;

await t.test('a file that is refused leaves everything as it was', { skip }, async (t) => {
  const { sites, running } = await site(t);
  const { a, b, lab } = sites;
  const pings = await sites.startPings('a', b.ipv4);

  const bad: readonly (readonly [what: string, text: string, path: RegExp])[] = [
    ['a wrong type', json(sites, { interface: { mtu: 'big' } }), /interface\.mtu: /],
    ['an unknown key', json(sites, { colour: 'red' }), /colour: unknown key/],
    ['truncated JSON', json(sites).slice(0, 60), /is not JSON/],
    ['nothing', '', /is not JSON/],
  ];
  for (const [what, text, path] of bad) {
    writeFileSync(a.daemon.configurationFile, text);
    await t.test(what, (t) => refused(t, sites, running, path));
  }
  await t.test('a file that is gone', async (t) => {
    rmSync(a.daemon.configurationFile);
    await refused(t, sites, running, /no such file/);
  });
  await t.test('a port that another program holds', async (t) => {
    const holder = lab.spawn('a', [process.execPath, '-e', HOLD_PORT]);
    await holder.waitFor(/held/, 10_000);
    a.daemon.configure(sites.configurationOf(a, { listenPort: 51999 }));
    await refused(t, sites, running, /interface\.listenPort: port-taken/);
    a.daemon.configure(sites.configurationOf(a, { listenPort: 51999, name: 'dmn-moved' }));
    await refused(t, sites, running, /interface\.listenPort: port-taken/);
  });
  await t.test('an interface that another program holds', async (t) => {
    await lab.ip('a', 'link add dmn-held type veth peer name dmn-other');
    a.daemon.configure(sites.configurationOf(a, { name: 'dmn-held' }));
    await refused(t, sites, running, /interface\.name: name-taken/);
  });
  await t.test('a good one ends the error', async (t) => {
    a.daemon.configure(sites.configurationOf(a));
    running.signal('SIGHUP');
    const { lastError } = await eventually(
      () => a.daemon.status(),
      (status) => status.lastError === undefined,
      10_000,
    );
    t.equal(lastError, undefined);
  });

  const { sent, lost } = await pings.end();
  // The interface itself moved there and back once.
  t.ok(lost <= 10, `${lost} of ${sent} pings were lost`);
});

await t.test('a good file changes what differs and keeps the sessions', { skip }, async (t) => {
  const { sites, running } = await site(t);
  const { a, b, lab } = sites;
  await sites.ping(t, 'a', b.ipv4);
  const before = (await a.daemon.status()).peers[0]?.lastHandshakeUnixMs;
  const pings = await sites.startPings('a', b.ipv4);

  await t.test('a peer more', async (t) => {
    a.daemon.configure({
      ...sites.configurationOf(a),
      peers: [sites.peerOf(a), stranger('192.168.77.0/24')],
    });
    const { peers } = await reloaded(sites, running, (status) => status.peers.length === 2);
    t.match(peers, [{ id: 'site-b', lastHandshakeUnixMs: before }, { id: 'stranger' }]);
    t.match(await lab.ip('a', 'route show 192.168.77.0/24'), a.device);
  });
  await t.test('other networks, MTU and addresses', async (t) => {
    const addresses = [`${a.ipv4}/32`, '100.64.9.9/32'];
    a.daemon.configure({
      ...sites.configurationOf(a, { mtu: 1300, addresses }),
      peers: [sites.peerOf(a), stranger('192.168.78.0/24')],
    });
    await reloaded(sites, running, (status) => status.interface?.mtu === 1300);
    t.equal(await lab.ip('a', 'route show 192.168.77.0/24'), '', 'the old route is gone');
    t.match(await lab.ip('a', 'route show 192.168.78.0/24'), a.device);
    const shown = await lab.ip('a', `address show ${a.device}`);
    t.match(shown, 'mtu 1300');
    t.match(shown, '100.64.9.9/32');
    t.notMatch(shown, `${a.ipv6}/128`);
  });
  await t.test('a peer less', async (t) => {
    a.daemon.configure(sites.configurationOf(a));
    const { peers } = await reloaded(sites, running, (status) => status.peers.length === 1);
    t.match(peers, [{ id: 'site-b', state: 'connected', lastHandshakeUnixMs: before }]);
    t.equal(await lab.ip('a', 'route show 192.168.78.0/24'), '');
  });

  const { sent, lost } = await pings.end();
  t.ok(lost <= 1, `${lost} of ${sent} pings were lost`);
});

await t.test('port and name of the interface can change', { skip }, async (t) => {
  const { sites, running } = await site(t);
  const { a, b, lab } = sites;
  a.daemon.configure(sites.configurationOf(a, { name: 'dmn-moved', listenPort: 51999 }));
  await reloaded(sites, running, (status) => status.interface?.name === 'dmn-moved');
  await sites.ping(t, 'a', b.ipv6);
  t.match(await lab.ip('a', 'link show'), 'dmn-moved');
  t.notMatch(await lab.ip('a', 'link show'), a.device);
  const { stdout } = await lab.exec('a', ['wg', 'show', 'dmn-moved', 'listen-port']);
  t.equal(stdout.trim(), '51999');
  t.match((await b.daemon.status()).peers, [{ endpoint: '10.9.0.1:51999' }], 'b follows');
});

async function site(t: Test): Promise<{ sites: TwoSites; running: Running }> {
  const sites = await TwoSites.create(t, 'dmn-reload');
  sites.b.daemon.configure(sites.configurationOf(sites.b));
  sites.a.daemon.configure(sites.configurationOf(sites.a));
  const [running] = await Promise.all([sites.a.daemon.start(), sites.b.daemon.start()]);
  return { sites, running };
}

/** Has `a` read its file, and expects a warning and a last error that name `path`, and nothing else. */
async function refused(t: Test, sites: TwoSites, running: Running, path: RegExp): Promise<void> {
  const { a } = sites;
  const told = running.lines.length;
  running.signal('SIGHUP');
  const news = async () => running.lines.slice(told);
  const lines = await eventually(news, (lines) => lines.length > 0, 10_000);
  const status = await a.daemon.status();
  t.match(status.lastError, path);
  t.match(status, { phase: 'running', interface: { name: a.device, listenPort: 51820 } });
  t.match(status.peers, [{ id: 'site-b', state: 'connected' }]);
  t.match(JSON.parse(lines[0] ?? ''), { severity: 'warn' });
  t.match(lines[0], path, 'the log names the path');
  t.equal((await news()).length, 1, 'once');
}

async function reloaded(
  sites: TwoSites,
  running: Running,
  satisfies: Parameters<typeof eventually<Awaited<ReturnType<typeof sites.a.daemon.status>>>>[1],
) {
  running.signal('SIGHUP');
  return eventually(() => sites.a.daemon.status(), satisfies, 10_000);
}

function json(sites: TwoSites, changes: object = {}): string {
  return JSON.stringify({ schema: 1, ...sites.configurationOf(sites.a), ...changes });
}

/** A peer that nobody is. */
function stranger(network: string): object {
  const privateKey = execFileSync('wg', ['genkey']);
  const publicKey = execFileSync('wg', ['pubkey'], { input: privateKey, encoding: 'utf8' }).trim();
  return { id: 'stranger', publicKey, allowedIps: [network] };
}
