import { readUint32 } from '../packet/big-endian.ts';
import { flowKey, readFiveTuple } from '../packet/five-tuple.ts';
import { IpPacket, PROTOCOL_TCP } from '../packet/ip-packet.ts';

/**
 * IP packets that wait until they may pass, in their order. A sender that hears nothing repeats itself:
 * of packets that are equal, and of a TCP SYN and its retransmissions, the first is kept. When there are
 * `limit` of them, the newest is dropped.
 */
export class HeldPackets {
  readonly #limit: number;
  readonly #packets: Uint8Array[] = [];
  /** Of those that are a TCP SYN: which connection they open. */
  readonly #openings = new Set<string>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Keeps a copy of the packet, or returns why not. */
  add(packet: Uint8Array): 'repeated' | 'queue-full' | undefined {
    const opening = openingOf(packet);
    const isRepeated =
      opening === undefined
        ? this.#packets.some((held) => areEqual(held, packet))
        : this.#openings.has(opening);
    if (isRepeated) return 'repeated';
    if (this.#packets.length === this.#limit) return 'queue-full';
    this.#packets.push(packet.slice());
    if (opening !== undefined) this.#openings.add(opening);
    return undefined;
  }

  get packets(): readonly Uint8Array[] {
    return this.#packets;
  }
}

/**
 * Returns text that a SYN has in common with its retransmissions, which differ in the identification of
 * RFC 791 and in the timestamps of RFC 7323: the flow and the initial sequence number (RFC 9293 §3.4). A
 * SYN-ACK is none: it answers, and each one may have another SYN to answer.
 */
function openingOf(bytes: Uint8Array): string | undefined {
  const packet = new IpPacket();
  if (packet.read(bytes, 0, bytes.length) !== undefined) return undefined;
  const { protocol, isFragment, payloadOffset: tcp, payloadLength } = packet;
  if (protocol !== PROTOCOL_TCP || isFragment || payloadLength < TCP_HEADER_SIZE) return undefined;
  if (((bytes[tcp + FLAGS] ?? 0) & (SYN | ACK)) !== SYN) return undefined;
  const tuple = readFiveTuple(packet);
  return tuple && `${flowKey(tuple)} ${readUint32(bytes, tcp + SEQUENCE_NUMBER)}`;
}

/* RFC 9293 §3.1. */
const TCP_HEADER_SIZE = 20;
const SEQUENCE_NUMBER = 4;
const FLAGS = 13;
const SYN = 0x02;
const ACK = 0x10;

function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}
