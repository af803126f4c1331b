import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { eventually } from '../lab/daemon.ts';
import { whyNoLab, type Running } from '../lab/namespaces.ts';
import { TwoSites, type Site } from '../lab/two-sites.ts';

/** What the log of a running daemon says, and what it never says. */
const skip = whyNoLab();
const JQ = 'cat "$0"/*.log | jq -r \'"\\(.time) \\(.severity) \\(.message)"\'';
const ADDRESS = /\b\d{1,3}(\.\d{1,3}){3}\b|\bfd[0-9a-f]{2}:/;

await t.test(
  'the log is JSON lines, alike on standard output and in a file',
  { skip },
  async (t) => {
    const sites = await TwoSites.create(t, 'dmn-log');
    const { a } = sites;
    const directory = join(sites.directory, 'log');
    a.daemon.configure(sites.configurationOf(a));
    const running = await a.daemon.start('--log-dir', directory);
    t.equal(await a.daemon.stop(), 0);
    const text = readFileSync(join(directory, 'culvert.log'), 'utf8');
    const lines = parse(running);
    const written = parse({ lines: text.trimEnd().split('\n') });
    t.same(written.slice(1), lines.slice(1));
    t.same({ ...written[0], time: '' }, { ...lines[0], time: '' }, 'each begins by itself');
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
    t.match(lines[0], {
      severity: 'info',
      message: 'culvert log',
      version,
      commit: /^[0-9a-f]{7,}/,
    });
    t.match(lines.at(-1), { severity: 'info', message: 'stopping', signal: 'SIGTERM' });

    const readable = execFileSync('sh', ['-c', JQ, directory], { encoding: 'utf8' });
    t.equal(readable.trimEnd().split('\n').length, lines.length, 'a line each through jq');
    for (const line of readable.trimEnd().split('\n')) {
      t.match(line, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (trace|debug|info|warn|error) \S.*$/);
    }
    await a.daemon.start('--log-dir', directory);
    const appended = readFileSync(join(directory, 'culvert.log'), 'utf8');
    t.ok(appended.startsWith(text), 'a restart appends');
  },
);

await t.test('no secret is in it, even at level trace', { skip }, async (t) => {
  const sites = await TwoSites.create(t, 'dmn-trace');
  const { a, b } = sites;
  const psk = wg('genpsk');
  const running = await startBoth(sites, psk, '--log-level', 'trace');
  await live(sites, running);
  const trace = running.lines.join('\n');
  t.match(trace, '"severity":"debug"', 'the level is as asked for');

  const own = [a, b].flatMap(({ daemon }) =>
    ['wireguard.key', 'device.key'].map((file) => read(join(daemon.directory, file))),
  );
  const set = [psk, read(join(sites.directory, 'wg.psk')), read(join(sites.directory, 'wg.key'))];
  for (const secret of [...own, ...set]) {
    const hex = Buffer.from(secret, 'base64').toString('hex');
    for (const form of [secret, hex, secret.slice(4, 20)]) t.notOk(trace.includes(form));
  }
});

await t.test('no address is in it at level info', { skip }, async (t) => {
  const sites = await TwoSites.create(t, 'dmn-info');
  const running = await startBoth(sites, wg('genpsk'));
  await live(sites, running);
  t.ok(running.lines.length > 4, 'something was said');
  for (const line of running.lines) t.notMatch(line, ADDRESS);
});

await t.test(
  'the level follows the configuration, but not against the command line',
  { skip },
  async (t) => {
    const sites = await TwoSites.create(t, 'dmn-level');
    const { a, b } = sites;
    for (const site of [a, b]) site.daemon.configure(sites.configurationOf(site));
    const [running, fixed] = await Promise.all([
      a.daemon.start(),
      b.daemon.start('--log-level', 'info'),
    ]);
    for (const site of [a, b]) {
      site.daemon.configure({ ...sites.configurationOf(site), log: { level: 'debug' } });
    }
    running.signal('SIGHUP');
    fixed.signal('SIGHUP');
    await running.waitFor(/log level/, 10_000);
    await sites.ping(t, 'a', b.ipv4);
    await running.waitFor(/"severity":"debug"/, 10_000);
    t.notMatch(fixed.lines.join('\n'), '"severity":"debug"');
  },
);

/** What a day brings: traffic, reloads that work and fail, wg, another endpoint, a peer that is away. */
async function live(sites: TwoSites, running: Running): Promise<void> {
  const { lab, a, b } = sites;
  await lab.exec('a', ['ping', '-c2', '-i0.1', '-W5', b.ipv4]);
  writeFileSync(a.daemon.configurationFile, `{"peers":[{"presharedKey":"${wg('genpsk')}`);
  running.signal('SIGHUP');
  await running.waitFor(/refused/, 10_000);
  for (const [file, command] of [
    ['wg.psk', 'genpsk'],
    ['wg.key', 'genkey'],
  ] as const) {
    writeFileSync(join(sites.directory, file), wg(command));
  }
  const set = async (...words: string[]) => lab.exec('a', ['wg', 'set', a.device, ...words]);
  await set('peer', b.publicKey, 'preshared-key', join(sites.directory, 'wg.psk'));
  await set('private-key', join(sites.directory, 'wg.key'));
  await lab.exec('a', ['ping', '-c1', '-W1', b.ipv4]);
  await set('listen-port', '51999');
  a.daemon.configure(sites.configurationOf(a, {}, { endpoint: b.endpoints.ipv6 }));
  running.signal('SIGHUP');
  await eventually(
    () => a.daemon.status(),
    ({ lastError, peers }) => lastError === undefined && peers[0]?.endpoint === b.endpoints.ipv6,
    10_000,
  );
  await lab.ip('a', `link del ${a.device}`);
  await running.waitFor(/made again/, 10_000);
  running.signal('SIGTERM');
  await running.ended;
}

async function startBoth(sites: TwoSites, psk: string, ...options: string[]): Promise<Running> {
  const { a, b } = sites;
  const configure = (site: Site): void =>
    site.daemon.configure(sites.configurationOf(site, {}, { presharedKey: psk }));
  [a, b].forEach(configure);
  const [running] = await Promise.all([a.daemon.start(...options), b.daemon.start(...options)]);
  return running;
}

function parse({ lines }: Pick<Running, 'lines'>): readonly Record<string, unknown>[] {
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

function wg(command: 'genpsk' | 'genkey'): string {
  return execFileSync('wg', [command], { encoding: 'utf8' }).trim();
}

function read(file: string): string {
  return readFileSync(file, 'utf8').trim();
}
