/** Runs one micro-benchmark and prints its findings as JSON: `micro.mjs NAME SECONDS`. */
import { cipher } from './cipher.ts';
import { handshake } from './handshake.ts';
import type { MicroBench } from './micro-bench.ts';
import { nat } from './nat.ts';
import { netlink } from './netlink.ts';
import { peers } from './peers.ts';
import { routes } from './routes.ts';

const BENCHES: Readonly<Record<string, MicroBench>> = {
  cipher,
  handshake,
  routes,
  peers,
  nat,
  netlink,
};

const [name = '', seconds] = process.argv.slice(2);
const run = BENCHES[name];
if (run === undefined) throw new Error(`there is no micro-benchmark '${name}'`);
process.stdout.write(JSON.stringify(await run(Number(seconds))));
