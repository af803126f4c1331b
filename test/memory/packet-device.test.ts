import t from 'tap';
import { VNET_HEADER_SIZE } from '../../core/fastpath/layout.ts';
import { packetDeviceContract, udpPacket } from '../contract/packet-device.ts';
import { MemoryTunHost, type MemoryTun } from './packet-device.ts';

await t.test('the TUN in memory keeps the contract', async (t) => {
  await packetDeviceContract(t, async () => {
    const host = new MemoryTunHost();
    const devices: MemoryTun[] = [];
    return {
      create() {
        const device = host.createDevice();
        devices.push(device);
        return device;
      },
      bringUp: async () => undefined,
      async hostSends(payload) {
        const packet = udpPacket(payload);
        packet.set([10, 9, 0, 1, 10, 9, 0, 2], 12);
        const framed = new Uint8Array(VNET_HEADER_SIZE + packet.length);
        framed.set(packet, VNET_HEADER_SIZE);
        for (const device of devices) device.send(framed);
      },
      async hostReceived() {
        const all = devices.flatMap(({ received }) => received.splice(0));
        return all.map((packet) => packet.slice(VNET_HEADER_SIZE + 28));
      },
      settle: async () => devices.forEach((device) => device.report()),
    };
  });
});
