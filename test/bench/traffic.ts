import type { Lab } from '../lab/namespaces.ts';

/** Where traffic goes: from namespace `from` to `address`, which namespace `to` has. */
export interface Route {
  readonly lab: Lab;
  readonly from: string;
  readonly to: string;
  readonly address: string;
}

export interface TcpOptions {
  readonly seconds: number;
  readonly streams?: number;
  /** The far end sends. */
  readonly isReverse?: boolean;
}

/** Sends TCP at full speed; returns what arrived. */
export async function tcp(
  route: Route,
  { seconds, streams = 1, isReverse = false }: TcpOptions,
): Promise<{ readonly gigabits: number; readonly gigabitsPerSecond: number }> {
  const reverse = isReverse ? ['--reverse'] : [];
  const { sum_received: received } = await iperf(route, seconds, [
    '--parallel',
    String(streams),
    ...reverse,
  ]);
  return {
    gigabits: (received.bytes * 8) / 1e9,
    gigabitsPerSecond: (received.bytes * 8) / received.seconds / 1e9,
  };
}

const SMALL_PAYLOAD = 64;
const IPV4_AND_UDP_HEADERS = 28;

/** Sends UDP datagrams of 64 bytes as fast as iperf3 can; returns how many a second arrived. */
export async function smallDatagrams(route: Route, seconds: number): Promise<number> {
  const bytes = await udp(route, seconds, SMALL_PAYLOAD, '0');
  return bytes / SMALL_PAYLOAD;
}

/** Sends UDP datagrams that carry `length` bytes at a rate; returns how many Gbit/s of it arrived. */
export async function fullDatagrams(
  route: Route,
  options: {
    readonly seconds: number;
    readonly gigabitsPerSecond: number;
    readonly length: number;
  },
): Promise<number> {
  const { seconds, gigabitsPerSecond, length } = options;
  const bytes = await udp(route, seconds, length, String(Math.round(gigabitsPerSecond * 1e9)));
  return (bytes * 8) / 1e9;
}

/**
 * Returns how many bytes a second arrived in UDP datagrams. They are counted by a rule in the far end's
 * input hook, as iperf3 itself cannot read that fast.
 */
async function udp(
  route: Route,
  seconds: number,
  length: number,
  bitrate: string,
): Promise<number> {
  const { lab, to } = route;
  await nft(lab, to, `add table ip ${TABLE}`);
  try {
    await nft(lab, to, `add chain ip ${TABLE} input { type filter hook input priority 0; }`);
    await nft(lab, to, `add rule ip ${TABLE} input udp dport ${IPERF_PORT} counter`);
    const options = ['--udp', '--length', String(length), '--bitrate', bitrate];
    const { sum_received: received } = await iperf(route, seconds, options);
    const listed = await nft(lab, to, `list chain ip ${TABLE} input`);
    const [, packets, bytes] = /counter packets (\d+) bytes (\d+)/.exec(listed) ?? [];
    // A packet may be a train of datagrams that share one header.
    return (Number(bytes) - IPV4_AND_UDP_HEADERS * Number(packets)) / received.seconds;
  } finally {
    await nft(lab, to, `delete table ip ${TABLE}`);
  }
}

export interface RoundTrips {
  readonly averageMs: number;
  readonly maximumMs: number;
}

/** Pings at this interval in seconds. Rejects when not one answer came. */
export async function ping(
  { lab, from, address }: Route,
  { count, interval }: { readonly count: number; readonly interval: number },
): Promise<RoundTrips> {
  const command = ['ping', '-q', '-c', String(count), '-i', String(interval), '-W', '2', address];
  const timeoutMs = 10_000 + count * interval * 2000;
  const { stdout, stderr } = await lab.exec(from, command, { timeoutMs });
  const [, average, maximum] = /= [\d.]+\/([\d.]+)\/([\d.]+)\//.exec(stdout) ?? [];
  if (average === undefined) throw new Error(`no answer to a ping: ${stderr}${stdout}`);
  return { averageMs: Number(average), maximumMs: Number(maximum) };
}

/** Pings while a TCP stream runs at full speed. */
export async function pingUnderLoad(route: Route, seconds: number): Promise<RoundTrips> {
  const load = tcp(route, { seconds: seconds + 1 });
  const interval = 0.02;
  const [trips] = await Promise.all([
    // The stream needs a moment to reach its speed.
    new Promise((resolve) => setTimeout(resolve, 500)).then(() =>
      ping(route, { count: seconds / interval, interval }),
    ),
    load,
  ]);
  return trips;
}

const TABLE = 'bench';
const IPERF_PORT = 5201;

interface IperfEnd {
  readonly sum_received: { readonly bytes: number; readonly seconds: number };
}

/** Runs iperf3 once, with a server of its own. */
async function iperf(
  { lab, from, to, address }: Route,
  seconds: number,
  options: readonly string[],
): Promise<IperfEnd> {
  const server = lab.spawn(to, ['iperf3', '--server', '--one-off', '--forceflush']);
  try {
    await server.waitFor(/Server listening/, 5000);
    const command = ['iperf3', '--client', address, '--time', String(seconds), '--json'];
    const timeoutMs = seconds * 1000 + 20_000;
    const { stdout } = await lab.exec(from, [...command, ...options], { timeoutMs });
    const { end, error } = JSON.parse(stdout) as { end: Partial<IperfEnd>; error?: string };
    if (end.sum_received === undefined) throw new Error(`iperf3: ${error}`);
    return { sum_received: end.sum_received };
  } finally {
    await server.stop();
  }
}

async function nft(lab: Lab, namespace: string, command: string): Promise<string> {
  const { stdout, stderr, code } = await lab.exec(namespace, ['nft', ...command.split(' ')]);
  if (code !== 0) throw new Error(`nft ${command}: ${stderr.trim()}`);
  return stdout;
}
