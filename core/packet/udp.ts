import { ipAddressBytes } from '../net/ip-address.ts';
import {
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../net/socket-address.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import { readUint16, writeUint16 } from './big-endian.ts';
import { buildIpPacket } from './build-ip-packet.ts';
import { isTransportChecksumValid } from './checksum.ts';
import { PROTOCOL_UDP, type IpPacket } from './ip-packet.ts';

export interface UdpDatagram {
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
  /** From `readUdp`: a view of the packet. */
  readonly payload: Uint8Array;
}

export type MalformedUdp = 'not-udp' | 'fragment' | 'truncated-udp' | 'bad-udp-checksum';

/** Returns the whole IP packet that carries the datagram. Both addresses are of one family. */
export function buildUdpPacket({ source, destination, payload }: UdpDatagram): Uint8Array {
  const segment = new Uint8Array(UDP_HEADER_SIZE + payload.length);
  writeUint16(segment, 0, socketAddressPort(source));
  writeUint16(segment, 2, socketAddressPort(destination));
  writeUint16(segment, 4, segment.length);
  segment.set(payload, UDP_HEADER_SIZE);
  const fields = {
    source: ipAddressBytes(socketAddressIp(source)),
    destination: ipAddressBytes(socketAddressIp(destination)),
    protocol: PROTOCOL_UDP,
    trafficClass: 0,
  };
  return buildIpPacket(fields, segment);
}

/** Reads the datagram in a packet and verifies its checksum. */
export function readUdp(packet: IpPacket): Outcome<UdpDatagram, MalformedUdp> {
  const { bytes, payloadOffset, payloadLength } = packet;
  if (packet.protocol !== PROTOCOL_UDP) return failed('not-udp');
  if (packet.isFragment) return failed('fragment');
  if (payloadLength < UDP_HEADER_SIZE) return failed('truncated-udp');
  const length = readUint16(bytes, payloadOffset + 4);
  if (length < UDP_HEADER_SIZE || length > payloadLength) return failed('truncated-udp');
  if (!isTransportChecksumValid(packet)) return failed('bad-udp-checksum');
  return ok({
    source: socketAddress(packet.source, readUint16(bytes, payloadOffset)),
    destination: socketAddress(packet.destination, readUint16(bytes, payloadOffset + 2)),
    payload: bytes.subarray(payloadOffset + UDP_HEADER_SIZE, payloadOffset + length),
  });
}

const UDP_HEADER_SIZE = 8;
