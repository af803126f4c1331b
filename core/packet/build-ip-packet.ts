import { BugError } from '../sansio/outcome.ts';
import { writeUint16 } from './big-endian.ts';
import { writeIpv4HeaderChecksum, writeTransportChecksum } from './checksum.ts';
import { IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, IpPacket } from './ip-packet.ts';

export interface IpPacketFields {
  /** 4 or 16 bytes, like `destination`. */
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly protocol: number;
  /** Type of service, or traffic class. */
  readonly trafficClass: number;
}

/** Returns a packet of ours with this payload; the checksums of both headers are filled in. */
export function buildIpPacket(fields: IpPacketFields, payload: Uint8Array): Uint8Array {
  const { source, destination, protocol, trafficClass } = fields;
  const isIpv4 = source.length === 4;
  const headerSize = isIpv4 ? IPV4_HEADER_SIZE : IPV6_HEADER_SIZE;
  const totalLength = headerSize + payload.length;
  if (source.length !== destination.length) throw new BugError('packet between two families');
  if (totalLength > 0xffff) throw new BugError(`packet of ${totalLength} bytes`);

  const bytes = new Uint8Array(totalLength);
  if (isIpv4) {
    bytes[0] = 0x45;
    bytes[1] = trafficClass;
    writeUint16(bytes, 2, totalLength);
    writeUint16(bytes, 6, DONT_FRAGMENT);
    bytes[8] = HOP_LIMIT;
    bytes[9] = protocol;
  } else {
    writeUint16(bytes, 0, 0x6000 | (trafficClass << 4));
    writeUint16(bytes, 4, payload.length);
    bytes[6] = protocol;
    bytes[7] = HOP_LIMIT;
  }
  bytes.set(source, headerSize - source.length * 2);
  bytes.set(destination, headerSize - source.length);
  bytes.set(payload, headerSize);

  if (isIpv4) writeIpv4HeaderChecksum(bytes, 0);
  const packet = new IpPacket();
  packet.read(bytes, 0, totalLength);
  writeTransportChecksum(packet);
  return bytes;
}

const HOP_LIMIT = 64;
/** RFC 6864 §4.1: with it, the identification need not be unique. */
const DONT_FRAGMENT = 0x4000;
