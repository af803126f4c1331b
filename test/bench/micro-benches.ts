import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Lab } from '../lab/namespaces.ts';
import { attempt, type Bench } from './bench-definition.ts';
import { cipherMetrics } from './micro/cipher.ts';
import { handshakeMetrics, handshakeSide } from './micro/handshake.ts';
import type { Finding } from './micro/micro-bench.ts';
import { natMetrics } from './micro/nat.ts';
import { netlinkMetrics } from './micro/netlink.ts';
import { connectionMemory, peerMetrics } from './micro/peers.ts';
import { routeMetrics } from './micro/routes.ts';
import type { Metric } from './samples.ts';

const PROGRAM = 'dist/bench/micro.mjs';

/** Loops over one part of the product, each round in a process of its own. */
export const microBenches: readonly Bench[] = [
  micro('cipher', 'Sealing and opening packets, one thread', 'noble', cipherMetrics),
  {
    ...micro('handshake', 'A WireGuard handshake, one thread', 'node', handshakeMetrics),
    goals: (samples) =>
      ['initiator', 'responder'].map((side) => ({
        what: `CPU of the ${side} with node:crypto (ms)`,
        measured: samples.median('node', handshakeSide(side)),
        wanted: { atMost: 5 },
      })),
  },
  micro('routes', 'Finding the peer of an address', '100 prefixes', routeMetrics),
  {
    ...micro('peers', 'One peer and a thousand', '1 peer', peerMetrics),
    goals: (samples) => [
      {
        what: `${connectionMemory.name} (KB)`,
        measured: samples.median('1 peer', connectionMemory),
        wanted: { atMost: 16 },
      },
    ],
  },
  micro('nat', 'Sessions of address translation, and access', '100 sessions', natMetrics),
  netlink(),
];

function micro(name: string, title: string, baseline: string, metrics: readonly Metric[]): Bench {
  return {
    name,
    title,
    baseline,
    metrics,
    async run(context) {
      for (let round = 0; round < context.rounds; round++) {
        await attempt(context, name, async () => {
          const parameters = ['--expose-gc', PROGRAM, name, String(context.seconds)];
          const { stdout } = await promisify(execFile)(process.execPath, parameters);
          record(stdout, context.samples);
        });
      }
    },
  };
}

function netlink(): Bench {
  const title = 'Ten thousand routes';
  return {
    ...micro('netlink', title, 'ip', netlinkMetrics),
    async run(context) {
      for (let round = 0; round < context.rounds; round++) {
        await attempt(context, 'netlink', async () => {
          const lab = await Lab.create('culvert-bench');
          try {
            await lab.namespace('a');
            const command = [process.execPath, PROGRAM, 'netlink', String(context.seconds)];
            const { stdout, stderr, code } = await lab.exec('a', command, { timeoutMs: 120_000 });
            if (code !== 0) throw new Error(stderr);
            record(stdout, context.samples);
          } finally {
            await lab.destroy();
          }
        });
      }
    },
  };
}

function record(output: string, samples: Parameters<Bench['run']>[0]['samples']): void {
  for (const finding of JSON.parse(output) as readonly Finding[]) {
    if ('why' in finding) samples.fail(finding.subject, finding.why);
    else samples.add(finding.subject, finding.metric, finding.value);
  }
}
