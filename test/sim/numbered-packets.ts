import { socketAddress } from '../../core/net/socket-address.ts';
import { buildUdpPacket } from '../../core/packet/udp.ts';
import type { MemoryTun } from '../memory/packet-device.ts';
import { address } from './site.ts';

const VNET_HEADER_SIZE = 10;
/** Behind the virtio-net, IPv4 and UDP headers. */
const PAYLOAD_OFFSET = 38;

/** Has the host behind a TUN send a packet with this number in it. */
export function sendNumber(tun: MemoryTun, from: string, to: string, number: number): void {
  const payload = new Uint8Array(4);
  new DataView(payload.buffer).setUint32(0, number);
  const packet = buildUdpPacket({
    source: socketAddress(address(from), 1000),
    destination: socketAddress(address(to), 2000),
    payload,
  });
  const withHeader = new Uint8Array(VNET_HEADER_SIZE + packet.length);
  withHeader.set(packet, VNET_HEADER_SIZE);
  tun.send(withHeader);
  tun.report();
}

/** The numbers of the packets that arrived at a TUN, in order; one write may hold several. */
export function receivedNumbers(tun: MemoryTun): readonly number[] {
  return tun.received.flatMap((bytes) => {
    const payload = new DataView(bytes.buffer, bytes.byteOffset + PAYLOAD_OFFSET);
    const count = (bytes.length - PAYLOAD_OFFSET) / 4;
    return Array.from({ length: count }, (_, i) => payload.getUint32(4 * i));
  });
}
