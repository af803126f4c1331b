import { join } from 'node:path';
import { DaemonInLab } from '../../lab/daemon.ts';
import type { Lab, Running } from '../../lab/namespaces.ts';
import {
  KEEPALIVE_SECONDS,
  TUNNEL,
  TUNNEL_MTU,
  VETH,
  type Contestant,
  type Started,
} from './contestant.ts';

/** Our daemon on both sides, with the cipher of this name. Keys and sockets lie in `directory`. */
export function culvert(cipher: string, directory: string): Contestant {
  return {
    name: `culvert ${cipher}`,
    async start(lab) {
      const { a, b } = await configured(lab, directory);
      const options = ['--cipher', cipher];
      const runningB = b.spawn(...options);
      await expectLine(runningB, /configuration applied/);
      const started = performance.now();
      const runningA = a.spawn(...options);
      await expectLine(runningA, /peer connected/);
      const setUpMs = performance.now() - started;
      return { address: TUNNEL.b, pids: [runningA.pid, runningB.pid], setUpMs } satisfies Started;
    },
  };
}

/** Returns the name of the cipher that the daemon takes by itself. */
export async function chosenCipher(lab: Lab, directory: string): Promise<string> {
  const { a } = await configured(lab, directory);
  const running = a.spawn();
  try {
    const [, cipher = ''] = await running.waitFor(/packet path chosen.*"cipher":"([^"]+)"/, 10_000);
    return cipher;
  } finally {
    await running.stop();
  }
}

/** Two daemons that know each other, not yet running. */
export async function configured(
  lab: Lab,
  directory: string,
): Promise<{ readonly a: DaemonInLab; readonly b: DaemonInLab }> {
  const a = new DaemonInLab(lab, 'a', join(directory, 'a'));
  const b = new DaemonInLab(lab, 'b', join(directory, 'b'));
  const [keysOfA, keysOfB] = [await a.keys(), await b.keys()];
  a.configure({
    interface: { name: 'cvt-bench-a', mtu: TUNNEL_MTU, addresses: [`${TUNNEL.a}/24`] },
    peers: [
      {
        id: 'b',
        publicKey: keysOfB.publicKey,
        endpoint: `${VETH.b}:51820`,
        allowedIps: [`${TUNNEL.b}/32`],
        keepalive: KEEPALIVE_SECONDS,
      },
    ],
  });
  b.configure({
    interface: { name: 'cvt-bench-b', mtu: TUNNEL_MTU, addresses: [`${TUNNEL.b}/24`] },
    peers: [{ id: 'a', publicKey: keysOfA.publicKey, allowedIps: [`${TUNNEL.a}/32`] }],
  });
  return { a, b };
}

/** Waits for a line of the daemon; where it ends instead, its reason is the last line. */
async function expectLine(running: Running, pattern: RegExp): Promise<void> {
  try {
    await running.waitFor(pattern, 15_000);
  } catch (error) {
    const reason = running.lines.findLast((line) => line.startsWith('culvert: '));
    throw reason === undefined ? error : new Error(reason, { cause: error });
  }
}
