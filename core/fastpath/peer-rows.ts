import type { SocketAddress } from '../net/socket-address.ts';
import { BugError } from '../sansio/outcome.ts';
import {
  CONTROL_TOUCHED,
  FACT_LISTED,
  FACT_RECEIVED_DATA,
  FACT_RECEIVED_KEEPALIVE,
  FACT_RECEIVED_ON_SLOT_0,
  FACT_ROAMED,
  FACT_SENT_DATA,
  FACT_SENT_KEEPALIVE,
  KEY_SIZE,
  MOST_PEERS,
  PATH_REMOTE_LENGTH,
  PEERS,
  PEER_CURRENT,
  PEER_FACTS,
  PEER_PATH,
  PEER_RECEIVED_BYTES,
  PEER_RECEIVED_PACKETS,
  PEER_ROAMED,
  PEER_SENT_BYTES,
  PEER_SENT_PACKETS,
  PEER_SIZE,
  SESSIONS,
  SESSIONS_PER_PEER,
  SESSION_INSTALLED,
  SESSION_LOCAL_INDEX,
  SESSION_RECEIVE_KEY,
  SESSION_REMOTE_INDEX,
  SESSION_SEND_COUNTER,
  SESSION_SEND_KEY,
  SESSION_SIZE,
  TOUCHED,
} from './layout.ts';
import { readPath, writePath, type Path } from './path.ts';

/** The keys of a session. The arena keeps copies; the given ones are wiped. */
export interface SessionKeys {
  readonly peer: number;
  /** peer << 8 | counter */
  readonly localIndex: number;
  readonly remoteIndex: number;
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
}

/** What happened to a peer's packets since the last poll. One record serves all polls. */
export interface PeerFacts {
  readonly peer: number;
  readonly sentData: boolean;
  readonly sentKeepalive: boolean;
  readonly receivedData: boolean;
  readonly receivedKeepalive: boolean;
  /** Local index of the session on which something authentic came. */
  readonly receivedOn: number | undefined;
  /** Messages sent on the session in use; 0 without one. */
  readonly sendCounter: number;
  /** Where the last authentic message came from, if that is not the peer's path. */
  readonly roamedTo: SocketAddress | undefined;
  readonly roamedPath: Path | undefined;
}

/** Bytes as WireGuard counts them: whole messages with header, padding and tag. */
export interface PeerCounters {
  readonly txBytes: number;
  readonly rxBytes: number;
  readonly txPackets: number;
  readonly rxPackets: number;
}

/** The rows of the peers in the arena, as JavaScript writes and reads them between batches. */
export class PeerRows {
  readonly #arena: ArrayBuffer;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  /** Offsets of the sessions that the kernel does not see meanwhile, by peer. */
  readonly #held = new Map<number, number>();
  readonly #facts: { -readonly [Field in keyof PeerFacts]: PeerFacts[Field] } = {
    peer: 0,
    sentData: false,
    sentKeepalive: false,
    receivedData: false,
    receivedKeepalive: false,
    receivedOn: undefined,
    sendCounter: 0,
    roamedTo: undefined,
    roamedPath: undefined,
  };

  constructor(arena: ArrayBuffer) {
    this.#arena = arena;
    this.#bytes = new Uint8Array(arena);
    this.#view = new DataView(arena);
  }

  installSession(keys: SessionKeys): void {
    const { peer, localIndex, remoteIndex, sendKey, receiveKey } = keys;
    if (localIndex >>> 8 !== peer) throw new BugError('session index of another peer');
    if (sendKey.length !== KEY_SIZE || receiveKey.length !== KEY_SIZE) {
      throw new BugError('session key length');
    }
    const session = sessionIn(peer, localIndex % SESSIONS_PER_PEER);
    this.#clearSession(peer, session);
    this.#view.setUint32(session + SESSION_LOCAL_INDEX, localIndex, true);
    this.#view.setUint32(session + SESSION_REMOTE_INDEX, remoteIndex, true);
    this.#bytes.set(sendKey, session + SESSION_SEND_KEY);
    this.#bytes.set(receiveKey, session + SESSION_RECEIVE_KEY);
    this.#view.setUint32(session + SESSION_INSTALLED, 1, true);
    sendKey.fill(0);
    receiveKey.fill(0);
  }

  /** Sends with this session from here on. Returns whether it is there. */
  activateSession(peer: number, localIndex: number): boolean {
    const session = this.#installedSession(peer, localIndex);
    if (session === undefined) return false;
    this.#view.setUint32(rowOf(peer) + PEER_CURRENT, session, true);
    return true;
  }

  /** Wipes the keys and forgets the session. */
  dropSession(peer: number, localIndex: number): void {
    const session = this.#installedSession(peer, localIndex);
    if (session !== undefined) this.#clearSession(peer, session);
  }

  setPath(peer: number, path: Path | undefined): void {
    writePath(this.#arena, rowOf(peer) + PEER_PATH, path);
  }

  path(peer: number): Path | undefined {
    return readPath(this.#arena, rowOf(peer) + PEER_PATH);
  }

  remove(peer: number): void {
    const row = rowOf(peer);
    const listed = this.#view.getUint32(row + PEER_FACTS, true) & FACT_LISTED;
    for (let slot = 0; slot < SESSIONS_PER_PEER; slot++) {
      const session = sessionIn(peer, slot);
      const isThere = this.#view.getUint32(session + SESSION_INSTALLED, true) !== 0;
      if (isThere) this.#clearSession(peer, session);
    }
    this.#bytes.fill(0, row, row + PEER_SIZE);
    // The list of touched peers still has it; without facts the poll passes over it.
    this.#view.setUint32(row + PEER_FACTS, listed, true);
  }

  isReady(peer: number): boolean {
    const row = rowOf(peer);
    return (
      this.#view.getUint32(row + PEER_CURRENT, true) !== 0 &&
      this.#view.getUint32(row + PEER_PATH + PATH_REMOTE_LENGTH, true) !== 0
    );
  }

  /** Has the kernel stage what is read for the peer, as if there were no session, until `releaseAll`. */
  hold(peer: number): void {
    const current = rowOf(peer) + PEER_CURRENT;
    this.#held.set(peer, this.#view.getUint32(current, true));
    this.#view.setUint32(current, 0, true);
  }

  releaseAll(): void {
    for (const [peer, session] of this.#held) {
      this.#view.setUint32(rowOf(peer) + PEER_CURRENT, session, true);
    }
    this.#held.clear();
  }

  /** Whether data were sent since the facts of the peer were last polled. */
  hasSentData(peer: number): boolean {
    return (this.#view.getUint32(rowOf(peer) + PEER_FACTS, true) & FACT_SENT_DATA) !== 0;
  }

  counters(peer: number): PeerCounters {
    const row = rowOf(peer);
    return {
      txBytes: this.#u64(row + PEER_SENT_BYTES),
      rxBytes: this.#u64(row + PEER_RECEIVED_BYTES),
      txPackets: this.#u64(row + PEER_SENT_PACKETS),
      rxPackets: this.#u64(row + PEER_RECEIVED_PACKETS),
    };
  }

  /**
   * Returns the facts of one touched peer; of one that received on several sessions once for each. The
   * record is lent until the next call.
   */
  pollFacts(): PeerFacts | undefined {
    for (;;) {
      const touched = this.#view.getUint32(CONTROL_TOUCHED, true);
      if (touched === 0) return undefined;
      const peer = this.#view.getUint32(TOUCHED + (touched - 1) * 4, true);
      const row = rowOf(peer);
      const facts = this.#view.getUint32(row + PEER_FACTS, true);
      const slots = facts / FACT_RECEIVED_ON_SLOT_0;
      const laterSlots = slots & (slots - 1);
      if (laterSlots === 0) {
        this.#view.setUint32(CONTROL_TOUCHED, touched - 1, true);
        this.#view.setUint32(row + PEER_FACTS, 0, true);
      } else {
        const rest = FACT_LISTED | (laterSlots * FACT_RECEIVED_ON_SLOT_0);
        this.#view.setUint32(row + PEER_FACTS, rest, true);
      }
      if (facts !== FACT_LISTED) return this.#factsOf(peer, facts);
    }
  }

  #factsOf(peer: number, facts: number): PeerFacts {
    const row = rowOf(peer);
    const current = this.#view.getUint32(row + PEER_CURRENT, true);
    const roamed = (facts & FACT_ROAMED) !== 0;
    const roamedPath = roamed ? readPath(this.#arena, row + PEER_ROAMED) : undefined;
    const record = this.#facts;
    record.peer = peer;
    record.sentData = (facts & FACT_SENT_DATA) !== 0;
    record.sentKeepalive = (facts & FACT_SENT_KEEPALIVE) !== 0;
    record.receivedData = (facts & FACT_RECEIVED_DATA) !== 0;
    record.receivedKeepalive = (facts & FACT_RECEIVED_KEEPALIVE) !== 0;
    record.receivedOn = this.#lowestReceivedOn(peer, facts / FACT_RECEIVED_ON_SLOT_0);
    record.sendCounter = current === 0 ? 0 : this.#u64(current + SESSION_SEND_COUNTER);
    record.roamedTo = roamedPath?.remote;
    record.roamedPath = roamedPath;
    return record;
  }

  /** `slots` is a bit for each slot. The session may have been dropped since. */
  #lowestReceivedOn(peer: number, slots: number): number | undefined {
    for (let slot = 0; slot < SESSIONS_PER_PEER; slot++) {
      if (((slots >> slot) & 1) === 0) continue;
      const session = sessionIn(peer, slot);
      const isThere = this.#view.getUint32(session + SESSION_INSTALLED, true) !== 0;
      return isThere ? this.#view.getUint32(session + SESSION_LOCAL_INDEX, true) : undefined;
    }
    return undefined;
  }

  #installedSession(peer: number, localIndex: number): number | undefined {
    if (localIndex >>> 8 !== peer) return undefined;
    const session = sessionIn(peer, localIndex % SESSIONS_PER_PEER);
    const isIt =
      this.#view.getUint32(session + SESSION_INSTALLED, true) !== 0 &&
      this.#view.getUint32(session + SESSION_LOCAL_INDEX, true) === localIndex;
    return isIt ? session : undefined;
  }

  #clearSession(peer: number, session: number): void {
    this.#bytes.fill(0, session, session + SESSION_SIZE);
    const current = rowOf(peer) + PEER_CURRENT;
    if (this.#view.getUint32(current, true) === session) this.#view.setUint32(current, 0, true);
  }

  #u64(at: number): number {
    return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 2 ** 32;
  }
}

function rowOf(peer: number): number {
  if (!isPeer(peer)) throw new BugError(`peer index ${peer}`);
  return PEERS + peer * PEER_SIZE;
}

function sessionIn(peer: number, slot: number): number {
  if (!isPeer(peer)) throw new BugError(`peer index ${peer}`);
  return SESSIONS + (peer * SESSIONS_PER_PEER + slot) * SESSION_SIZE;
}

function isPeer(peer: number): boolean {
  return peer >= 0 && peer < MOST_PEERS;
}
