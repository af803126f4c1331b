import { readUint16, writeUint16 } from './big-endian.ts';
import { adjustChecksum } from './checksum.ts';
import { IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, PROTOCOL_TCP, type IpPacket } from './ip-packet.ts';

/**
 * Lowers the maximum segment size that a TCP SYN announces (RFC 9293 §3.7.1) to what fits the MTU, in
 * place, and returns whether it did. The checksum is adjusted and must be a complete one. Never raises or
 * adds the option, and leaves alone what is not a well-formed SYN.
 */
export function clampMss(packet: IpPacket, mtu: number): boolean {
  const { bytes, payloadOffset: tcp, payloadLength } = packet;
  if (packet.protocol !== PROTOCOL_TCP || !packet.isFirstOrWhole) return false;
  if (payloadLength < TCP_HEADER_SIZE || ((bytes[tcp + FLAGS] ?? 0) & SYN) === 0) return false;
  const at = findMss(packet);
  if (at === undefined) return false;

  const ipHeaderSize = packet.family === 4 ? IPV4_HEADER_SIZE : IPV6_HEADER_SIZE;
  const most = mtu - ipHeaderSize - TCP_HEADER_SIZE;
  const announced = readUint16(bytes, at);
  if (most < 1 || announced <= most) return false;
  writeUint16(bytes, at, most);
  let delta = most + (~announced & 0xffff);
  // Where the value straddles two words of the sum, its bytes count the other way round (RFC 1071 §2).
  if ((at - tcp) % 2 === 1) delta = swapBytes(most) + (~swapBytes(announced) & 0xffff);
  const checksum = adjustChecksum(readUint16(bytes, tcp + CHECKSUM), delta);
  writeUint16(bytes, tcp + CHECKSUM, checksum);
  return true;
}

const TCP_HEADER_SIZE = 20;
const DATA_OFFSET = 12;
const FLAGS = 13;
const CHECKSUM = 16;
const SYN = 0x02;

const END_OF_OPTIONS = 0;
const NO_OPERATION = 1;
const MAXIMUM_SEGMENT_SIZE = 2;

/** Returns the index of the option's value. */
function findMss(packet: IpPacket): number | undefined {
  const { bytes, payloadOffset: tcp } = packet;
  const headerLength = ((bytes[tcp + DATA_OFFSET] ?? 0) >> 4) * 4;
  if (headerLength > packet.payloadLength) return undefined;
  const end = tcp + headerLength;
  for (let at = tcp + TCP_HEADER_SIZE; at < end;) {
    const kind = bytes[at];
    if (kind === END_OF_OPTIONS) return undefined;
    if (kind === NO_OPERATION) {
      at++;
      continue;
    }
    const length = bytes[at + 1] ?? 0;
    if (length < 2 || at + length > end) return undefined;
    if (kind === MAXIMUM_SEGMENT_SIZE) return length === 4 ? at + 2 : undefined;
    at += length;
  }
  return undefined;
}

function swapBytes(word: number): number {
  return ((word & 0xff) << 8) | (word >> 8);
}
