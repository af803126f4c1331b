import { checksumDelta } from '../packet/checksum.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import { BugError } from '../sansio/outcome.ts';
import type { Rewrite } from './flow.ts';
import {
  CONTROL_KEY,
  CONTROL_TOUCHED_FLOWS,
  FACT_FIN,
  FACT_FLOW_LISTED,
  FACT_RST,
  FACT_SYN,
  FLOW_DESTINATION,
  FLOW_KIND,
  FLOW_PORTS,
  FLOW_SOURCE,
  FLOW_VERDICT,
  FLOW_WHO,
  IS_REPLY,
  MOST_REWRITE_SESSIONS,
  NEW_DESTINATION,
  NEW_DESTINATION_PORT,
  NEW_SOURCE,
  NEW_SOURCE_PORT,
  REWRITES,
  REWRITE_BYTES,
  REWRITE_DESTINATION,
  REWRITE_FACTS,
  REWRITE_GROWTH,
  REWRITE_PACKETS,
  REWRITE_PORTS,
  REWRITE_SESSION,
  REWRITE_SIZE,
  REWRITE_SOURCE,
  REWRITE_STAMP,
  REWRITE_STAMPS,
  REWRITE_WHAT,
  TOUCHED_FLOWS,
} from './layout.ts';

/**
 * What the packets of a session did in one direction since the last poll. One record serves all polls.
 * There are none of a session that was forgotten.
 */
export interface FlowFacts {
  readonly session: number;
  readonly isReply: boolean;
  readonly packets: number;
  /** Of IP packets, with their headers. */
  readonly bytes: number;
  /** TCP flags seen; FIN and RST only those after the last SYN. */
  readonly syn: boolean;
  readonly fin: boolean;
  readonly rst: boolean;
}

/** Facts of flows whose rows others took, that wait to be polled; the oldest are lost. */
const MOST_DISPLACED = 4096;

/** The rewrites in the arena, as JavaScript writes and reads them between calls of the kernel. */
export class RewriteRows {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #displaced = new BoundedQueue<FlowFacts>(MOST_DISPLACED, 'oldest');
  readonly #facts: { -readonly [Field in keyof FlowFacts]: FlowFacts[Field] } = {
    session: 0,
    isReply: false,
    packets: 0,
    bytes: 0,
    syn: false,
    fin: false,
    rst: false,
  };

  constructor(arena: ArrayBuffer) {
    this.#bytes = new Uint8Array(arena);
    this.#view = new DataView(arena);
  }

  /** Sets the rewrite of the flow at CONTROL_KEY, whose row has this index; takes the row from another flow. */
  set(index: number, rewrite: Rewrite | undefined): void {
    const row = REWRITES + index * REWRITE_SIZE;
    const listed = this.#view.getUint16(row + REWRITE_FACTS, true) & FACT_FLOW_LISTED;
    if (listed !== 0) {
      const facts = this.#takeFacts(row);
      if (facts !== undefined) this.#displaced.push({ ...facts });
      // The list of touched rows still has it.
      this.#view.setUint16(row + REWRITE_FACTS, listed, true);
      this.#view.setUint32(row + REWRITE_SESSION, 0, true);
    }
    if (rewrite === undefined) return;
    this.#bytes.fill(0, row, row + REWRITE_SIZE);
    this.#view.setUint16(row + REWRITE_FACTS, listed, true);
    this.#write(row, rewrite);
  }

  /**
   * Turns the key at CONTROL_KEY into each of those that answers to its flow have, rewritten as it is, and
   * calls back for each. `who` is that of the answers.
   */
  forEachReply(rewrite: Rewrite, who: number, visit: () => void): void {
    const key = CONTROL_KEY;
    const source = this.#bytes.slice(key + FLOW_SOURCE, key + FLOW_DESTINATION);
    this.#bytes.copyWithin(key + FLOW_SOURCE, key + FLOW_DESTINATION, key + FLOW_VERDICT);
    this.#bytes.set(source, key + FLOW_DESTINATION);
    if (rewrite.destination !== undefined) this.#bytes.set(rewrite.destination, key + FLOW_SOURCE);
    if (rewrite.source !== undefined) this.#bytes.set(rewrite.source, key + FLOW_DESTINATION);
    const sourcePort = rewrite.sourcePort ?? this.#view.getUint16(key + FLOW_PORTS);
    const destinationPort = rewrite.destinationPort ?? this.#view.getUint16(key + FLOW_PORTS + 2);
    const protocol = this.#bytes[key + FLOW_KIND + 1] ?? 0;
    const isEcho = protocol === ICMP || protocol === ICMPV6;
    this.#view.setUint16(key + FLOW_PORTS, isEcho ? sourcePort : destinationPort);
    this.#view.setUint16(key + FLOW_PORTS + 2, isEcho ? echoReply(destinationPort) : sourcePort);
    this.#view.setUint32(key + FLOW_WHO, who, true);
    // Whole packets, the first fragments of UDP, and fragments without ports.
    this.#bytes[key + FLOW_KIND + 2] = 0;
    visit();
    this.#bytes[key + FLOW_KIND + 2] = 1;
    visit();
    this.#view.setUint32(key + FLOW_PORTS, 0);
    visit();
  }

  /** Has every flow that is rewritten for the session miss. */
  forget(session: number): void {
    const stamp = stampOf(session);
    this.#view.setUint32(stamp, this.#view.getUint32(stamp, true) + 1, true);
  }

  /** Returns the facts of one touched flow. The record is lent until the next call. */
  pollFacts(): FlowFacts | undefined {
    const displaced = this.#displaced.shift();
    if (displaced !== undefined) return displaced;
    for (;;) {
      const touched = this.#view.getUint32(CONTROL_TOUCHED_FLOWS, true);
      if (touched === 0) return undefined;
      this.#view.setUint32(CONTROL_TOUCHED_FLOWS, touched - 1, true);
      const row = this.#view.getUint32(TOUCHED_FLOWS + (touched - 1) * 4, true);
      const facts = this.#takeFacts(row);
      if (facts !== undefined) return facts;
    }
  }

  #takeFacts(row: number): FlowFacts | undefined {
    const session = this.#view.getUint32(row + REWRITE_SESSION, true);
    const packets = this.#view.getUint32(row + REWRITE_PACKETS, true);
    const flags = this.#view.getUint16(row + REWRITE_FACTS, true);
    const record = this.#facts;
    record.session = session - 1;
    record.isReply = (this.#view.getUint16(row + REWRITE_WHAT, true) & IS_REPLY) !== 0;
    record.packets = packets;
    record.bytes =
      this.#view.getUint32(row + REWRITE_BYTES, true) +
      this.#view.getUint32(row + REWRITE_BYTES + 4, true) * 2 ** 32;
    record.syn = (flags & FACT_SYN) !== 0;
    record.fin = (flags & FACT_FIN) !== 0;
    record.rst = (flags & FACT_RST) !== 0;
    this.#view.setUint16(row + REWRITE_FACTS, 0, true);
    this.#bytes.fill(0, row + REWRITE_PACKETS, row + REWRITE_SIZE);
    if (session === 0 || packets === 0) return undefined;
    // The number of a session that has ended may be another's by now.
    const stamp = this.#view.getUint32(stampOf(session - 1), true);
    return stamp === this.#view.getUint32(row + REWRITE_STAMP, true) ? record : undefined;
  }

  #write(row: number, rewrite: Rewrite): void {
    const { source, destination, sourcePort, destinationPort, session } = rewrite;
    let what = rewrite.isReply === true ? IS_REPLY : 0;
    let addresses = 0;
    if (source !== undefined) {
      what |= NEW_SOURCE;
      addresses += this.#setAddress(row + REWRITE_SOURCE, FLOW_SOURCE, source);
    }
    if (destination !== undefined) {
      what |= NEW_DESTINATION;
      addresses += this.#setAddress(row + REWRITE_DESTINATION, FLOW_DESTINATION, destination);
    }
    let ports = 0;
    if (sourcePort !== undefined) {
      what |= NEW_SOURCE_PORT;
      ports += this.#setPort(row + REWRITE_PORTS, FLOW_PORTS, sourcePort);
    }
    if (destinationPort !== undefined) {
      what |= NEW_DESTINATION_PORT;
      ports += this.#setPort(row + REWRITE_PORTS + 2, FLOW_PORTS + 2, destinationPort);
    }
    this.#view.setUint16(row + REWRITE_GROWTH, fold(addresses));
    this.#view.setUint16(row + REWRITE_GROWTH + 2, fold(ports));
    this.#view.setUint16(row + REWRITE_WHAT, what, true);
    if (session === undefined) return;
    this.#view.setUint32(row + REWRITE_SESSION, session + 1, true);
    const stamp = this.#view.getUint32(stampOf(session), true);
    this.#view.setUint32(row + REWRITE_STAMP, stamp, true);
  }

  /** Returns by how much the sum of the header grows. */
  #setAddress(at: number, field: number, address: Uint8Array): number {
    const size = this.#bytes[CONTROL_KEY + FLOW_KIND] === 4 ? 4 : 16;
    if (address.length !== size) throw new BugError('rewrite to an address of another family');
    this.#bytes.set(address, at);
    const before = this.#bytes.subarray(CONTROL_KEY + field, CONTROL_KEY + field + size);
    return checksumDelta(before, address);
  }

  #setPort(at: number, field: number, port: number): number {
    const protocol = this.#bytes[CONTROL_KEY + FLOW_KIND + 1] ?? 0;
    const isFragment = this.#bytes[CONTROL_KEY + FLOW_KIND + 2] !== 0;
    const isIcmp = protocol === ICMP || protocol === ICMPV6;
    const isPossible = isFragment
      ? protocol === UDP
      : PORTED.has(protocol) || (isIcmp && field === FLOW_PORTS);
    if (!isPossible) throw new BugError(`rewrite of a port of protocol ${protocol}`);
    this.#view.setUint16(at, port);
    const before = CONTROL_KEY + field;
    return checksumDelta(
      this.#bytes.subarray(before, before + 2),
      this.#bytes.subarray(at, at + 2),
    );
  }
}

const ICMP = 1;
const UDP = 17;
const ICMPV6 = 58;
/** TCP, UDP, UDP-Lite. A new port in SCTP would ask for a new CRC over the whole packet. */
const PORTED: ReadonlySet<number> = new Set([6, UDP, 136]);

/** Returns type and code of the answer to an echo (RFC 792, RFC 4443 §4.2). */
function echoReply(typeAndCode: number): number {
  return typeAndCode >> 8 === ICMPV6_ECHO ? (ICMPV6_ECHO + 1) << 8 : 0;
}

const ICMPV6_ECHO = 128;

function stampOf(session: number): number {
  if (!(session >= 0 && session < MOST_REWRITE_SESSIONS)) throw new BugError(`session ${session}`);
  return REWRITE_STAMPS + (session + 1) * 4;
}

function fold(sum: number): number {
  return sum > 0xffff ? (sum & 0xffff) + (sum >>> 16) : sum;
}
