import { setTimeout as wait } from 'node:timers/promises';
import t from 'tap';
import { eventually } from '../lab/daemon.ts';
import { Download } from '../lab/download.ts';
import { whyNoLab } from '../lab/namespaces.ts';
import { HOSTS, RESOLVER, ResourceLab, type Router } from '../lab/resource-lab.ts';

const skip = whyNoLab();
const MB = 1e6;
const NAME = 'app.site.example';
const PORT = 80;
/** Two servers, whose files differ in size, and come no faster than this each. */
const SERVERS = [
  { address: HOSTS[0]!.ipv4, bytes: 4 * MB },
  { address: HOSTS[1]!.ipv4, bytes: 5 * MB },
];
const BYTES_PER_SECOND = 0.5 * MB;

/** Another address at each query, with a TTL of 0. */
await t.test('a name whose address changes all the time', { skip }, async (t) => {
  const scene = await ResourceLab.create(t, 'rsw', ['a', 'c']);
  const { lab, a, c } = scene;
  const addresses = SERVERS.map(({ address }) => address);
  const rotating = ['test/lab/rotating-dns.mjs', RESOLVER, ...addresses];
  const resolver = lab.spawn('lan-gateway', [process.execPath, ...rotating]);
  await resolver.waitFor(/listening/, 10_000);
  const sums = await Promise.all(SERVERS.map(serve));
  scene.configureResource(
    { id: 'app', type: 'dns', patterns: ['*.site.example'] },
    { clients: [a, c] },
  );
  await scene.start([a, c]);

  async function serve({ address, bytes }: (typeof SERVERS)[number]): Promise<string> {
    const options = [address, PORT, bytes, BYTES_PER_SECOND].map(String);
    const command = [process.execPath, 'test/lab/file-server.mjs', ...options];
    const [, sha256 = ''] = await lab
      .spawn('lan-gateway', command)
      .waitFor(/listening (\w+)/, 20_000);
    return sha256;
  }

  /** Which of the servers a new connection comes to. */
  async function serverAt({ lan }: Router, proxy: string): Promise<number> {
    // Ends with the headers: the file is too large for it.
    const headers = ['curl', '-s', '-D-', '-o/dev/null', '--max-filesize', '1', '--max-time', '5'];
    const { stdout } = await lab.exec(lan, [...headers, `http://${proxy}:${PORT}/`]);
    const size = Number(/content-length: (\d+)/i.exec(stdout)?.[1]);
    return SERVERS.findIndex(({ bytes }) => bytes === size);
  }

  /** Looks a name up until new connections come to another server. Returns its number. */
  async function moves(client: Router, proxy: string, from: number): Promise<number> {
    const next = async (): Promise<number> => {
      await scene.lookUp(client, NAME);
      return serverAt(client, proxy);
    };
    return eventually(next, (server) => server !== from && server >= 0, 10_000);
  }

  /** All hosts of a LAN fetch from the same ports. Returns which server each file is of. */
  async function fetchAll({ lan }: Router, proxy: string, ports: readonly number[]) {
    const url = `http://${proxy}:${PORT}/`;
    const wanted = HOSTS.flatMap(({ ipv4: localAddress }) =>
      ports.map((localPort) => ({ url, localAddress, localPort })),
    );
    const command = [process.execPath, 'test/lab/parallel-downloads.mjs', JSON.stringify(wanted)];
    const { stdout } = await lab.exec(lan, command, { timeoutMs: 60_000 });
    const results = JSON.parse(stdout) as readonly { sha256?: string; error?: string }[];
    return results.map(({ sha256 = '', error }) => error ?? sums.indexOf(sha256));
  }

  await t.test('downloads at once through one proxy come from two servers', async (t) => {
    const [proxy = ''] = await scene.lookUp(a, NAME);
    const [other = ''] = await scene.lookUp(c, 'other.site.example');
    t.equal(other, proxy, 'two clients have the same proxy for different names');
    const [first, third] = [await serverAt(a, proxy), await serverAt(c, proxy)];
    let isFirstOpen = true;
    const fromFirst = fetchAll(a, proxy, [40_000, 40_001]).finally(() => (isFirstOpen = false));
    const fromThird = fetchAll(c, proxy, [40_000, 40_001]);
    const second = await moves(a, proxy, first);
    // Not the ports of before: a connection that has just ended may be taken for one that still is.
    t.ok(isFirstOpen, 'the first ten are under way while the second ten begin');
    const fromSecond = fetchAll(a, proxy, [40_010, 40_011]);
    t.same(await fromFirst, Array(10).fill(first), 'what was open when the address changed');
    t.same(await fromSecond, Array(10).fill(second), 'what came after');
    t.same(await fromThird, Array(10).fill(third), 'another client, on the same ports');
  });

  await t.test('a long download outlives a change at each second', async (t) => {
    const [proxy = ''] = await scene.lookUp(a, NAME);
    const ends = { client: 'lan-a', server: 'lan-gateway', address: proxy };
    const bytes = 6 * MB;
    const download = await Download.start(lab, { ...ends, bytes, bytesPerSecond: MB });
    const servers = [await serverAt(a, proxy)];
    while (download.bytes < 0.75 * bytes) {
      servers.push(await moves(a, proxy, servers.at(-1) ?? 0));
      await wait(1000);
    }
    t.ok(servers.length > 2, `new connections came to ${servers.join(', ')} meanwhile`);
    const { isIntact, longestGapMs } = await download.finish(30_000);
    t.ok(isIntact, `at most ${Math.round(longestGapMs)} ms without a byte`);
  });
});
