import { execFileSync, spawnSync } from 'node:child_process';
import { native, type Native } from '../../core/plugin/native.ts';
import type { PluginHost } from '../../core/plugin/plugin.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { createWireguardDevice } from '../../plugins/netlink/index.ts';
import type { WireguardWorld } from '../contract/wireguard-device.ts';

/** WireGuard devices of this kernel, and `wg` as the other program. */
export function kernelWorld(calls: Native): WireguardWorld {
  const host: PluginHost = {
    log: nullLog,
    get clock(): never {
      throw new Error('not used');
    },
    use: (wanted) => {
      if (wanted.name !== native.name) throw new Error(`not offered: ${wanted.name}`);
      return calls as never;
    },
  };
  const plugin = createWireguardDevice().create(host);
  if ('skip' in plugin) throw new Error(plugin.skip);
  return {
    device: plugin.api,
    dump(name) {
      const { status, stdout } = spawnSync('wg', ['show', name, 'dump'], {
        encoding: 'utf8',
        maxBuffer: 1 << 28,
      });
      if (status !== 0) return undefined;
      return stdout
        .trimEnd()
        .split('\n')
        .map((line) => line.split('\t'));
    },
    setPeer: (name, publicKey, allowedIps) =>
      void run('wg', 'set', name, 'peer', base64(publicKey), 'allowed-ips', allowedIps.join(',')),
    removePeer: (name, publicKey) =>
      void run('wg', 'set', name, 'peer', base64(publicKey), 'remove'),
    addOther: (name) => void run('ip', 'link', 'add', name, 'type', 'dummy'),
    removeOther: (name) => void run('ip', 'link', 'del', name),
    publicKeyOf(privateKey) {
      const text = execFileSync('wg', ['pubkey'], { input: base64(privateKey), encoding: 'utf8' });
      return new Uint8Array(Buffer.from(text, 'base64'));
    },
    close: () => plugin.stop(),
  };
}

function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8' });
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64');
}
