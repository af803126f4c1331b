import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab, Running } from '../../lab/namespaces.ts';
import { KEEPALIVE_SECONDS, TUNNEL, TUNNEL_MTU, VETH, type Contestant } from './contestant.ts';

/** A wireguard-go on both sides, set up by `wg` and `ip`; its files lie in `directory`. */
export function wireguardGo(version: string, program: string, directory: string): Contestant {
  return {
    name: `wireguard-go ${version}`,
    async start(lab) {
      const [a, b] = [makeKeys(), makeKeys()];
      const fileOfA = write(
        directory,
        `[Interface]
PrivateKey = ${a.privateKey}
[Peer]
PublicKey = ${b.publicKey}
AllowedIPs = ${TUNNEL.b}/32
Endpoint = ${VETH.b}:${PORT}
PersistentKeepalive = ${KEEPALIVE_SECONDS}
`,
      );
      const fileOfB = write(
        directory,
        `[Interface]
PrivateKey = ${b.privateKey}
ListenPort = ${PORT}
[Peer]
PublicKey = ${a.publicKey}
AllowedIPs = ${TUNNEL.a}/32
`,
      );
      const runningB = await run(lab, 'b', program, fileOfB);
      const started = performance.now();
      const runningA = await run(lab, 'a', program, fileOfA);
      await runningA.waitFor(/Received handshake response/, 10_000);
      const setUpMs = performance.now() - started;
      return { address: TUNNEL.b, pids: [runningA.pid, runningB.pid], setUpMs };
    },
  };
}

const PORT = 51_821;

/** Returns the path of a file of its own. */
function write(directory: string, configuration: string): string {
  const path = join(mkdtempSync(join(directory, 'wireguard-')), 'wireguard.conf');
  writeFileSync(path, configuration, { mode: 0o600 });
  return path;
}

async function run(
  lab: Lab,
  side: 'a' | 'b',
  program: string,
  configuration: string,
): Promise<Running> {
  const name = `wg-bench-${side}`;
  const running = lab.spawn(side, [program, '--foreground', name], {
    env: { WG_PROCESS_FOREGROUND: '1', LOG_LEVEL: 'verbose' },
  });
  await running.waitFor(/UAPI listener started/, 10_000);
  const setUp = [
    `wg setconf ${name} ${configuration}`,
    `ip address add ${TUNNEL[side]}/24 dev ${name}`,
    `ip link set ${name} mtu ${TUNNEL_MTU} up`,
  ];
  const { code, stderr } = await lab.exec(side, ['sh', '-ec', setUp.join('\n')]);
  if (code !== 0) throw new Error(`wireguard-go could not be set up: ${stderr.trim()}`);
  return running;
}

function makeKeys(): { readonly privateKey: string; readonly publicKey: string } {
  const privateKey = wg('genkey', '');
  return { privateKey, publicKey: wg('pubkey', privateKey) };
}

function wg(command: string, input: string): string {
  return execFileSync('wg', [command], { input, encoding: 'utf8' }).trim();
}
