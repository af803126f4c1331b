import { native } from '../../core/plugin/native.ts';
import { packetDevice, type PacketDevice } from '../../core/plugin/packet-device.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { TunDevice } from './tun-device.ts';

/** Returns a plugin that offers a TUN device with segmentation and checksum offload. */
export function createTunDataplane(): PluginDefinition<PacketDevice> {
  return {
    name: 'dataplane-tun',
    provides: packetDevice,
    needs: [native],
    create(host) {
      const device = new TunDevice(host.use(native), host.log);
      return { api: device, stop: () => device.close() };
    },
  };
}
