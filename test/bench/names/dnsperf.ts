import type { Lab } from '../../lab/namespaces.ts';
import { median } from '../samples.ts';

/** Who is asked. */
export interface Server {
  readonly address: string;
  readonly port: number;
}

/** Queries under way at the same time, as of a busy LAN, and how many sockets they come from. */
const UNDER_WAY = 100;
const CLIENTS = 10;

export interface Flood {
  readonly perSecond: number;
  readonly completed: number;
}

/** Asks as fast as answers come. */
export async function flood(
  lab: Lab,
  server: Server,
  questions: string,
  seconds: number,
): Promise<Flood> {
  const options = ['-q', String(UNDER_WAY), '-c', String(CLIENTS)];
  const output = await dnsperf(lab, server, questions, seconds, options);
  const perSecond = numberIn(output, /Queries per second: +([\d.]+)/);
  const completed = numberIn(output, /Queries completed: +(\d+)/);
  const lost = numberIn(output, /Queries lost: +(\d+)/);
  if (lost > completed / 100) throw new Error(`${lost} queries without an answer`);
  return { perSecond, completed };
}

/** Asks one question after the other; returns the milliseconds that half of the answers took at most. */
export async function latency(
  lab: Lab,
  server: Server,
  questions: string,
  seconds: number,
): Promise<number> {
  const options = ['-v', '-q', '1', '-c', '1', '-Q', '250'];
  const output = await dnsperf(lab, server, questions, seconds, options);
  const times = [...output.matchAll(/^> NOERROR \S+ \S+ ([\d.]+)$/gm)];
  if (times.length === 0) throw new Error(`no answers: ${output.slice(-300)}`);
  return median(times.map(([, time]) => Number(time) * 1000));
}

async function dnsperf(
  lab: Lab,
  { address, port }: Server,
  questions: string,
  seconds: number,
  options: readonly string[],
): Promise<string> {
  const where = ['-s', address, '-p', String(port), '-d', questions];
  const command = ['dnsperf', ...where, '-l', String(seconds), '-t', '2', ...options];
  const timeoutMs = (seconds + 20) * 1000;
  const { stdout, stderr, code } = await lab.exec('client', command, { timeoutMs });
  if (code !== 0) throw new Error(stderr.trim());
  return stdout;
}

function numberIn(output: string, pattern: RegExp): number {
  const [, found] = pattern.exec(output) ?? [];
  if (found === undefined) throw new Error(`dnsperf did not tell ${pattern.source}`);
  return Number(found);
}
