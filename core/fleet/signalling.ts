/**
 * Signals between this device and its peers, over a broker that is not trusted with them: says how this
 * device can be reached, and hears how its peers can.
 *
 * Only the newest list of candidates counts. It goes out when it is given, at most every 200 ms to a peer;
 * is held while the broker is away; and goes out again with each connection to the broker, and to a peer
 * that has started since it last signalled: neither it nor the broker keeps what was said before.
 *
 * What was last heard of a peer (boot, seq) is in memory alone. After a start of ours the first signal that
 * opens is taken as it is; one that a broker replays gives way to the next that the peer sends.
 */
import { LIMITS } from '../config/defaults.ts';
import type { Name } from '../config/name.ts';
import type { Candidate } from '../ice/candidate.ts';
import type { ControlEvent, Publication } from '../plugin/control-channel.ts';
import type { Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import { equalInConstantTime, type Crypto } from '../sansio/crypto.ts';
import { ExpiringMap } from '../sansio/expiring-map.ts';
import { after, elapsed, instantAt, type Instant, type Millis } from '../sansio/instant.ts';
import { randomFraction, type Random } from '../sansio/random.ts';
import { openSignal, sealSignal, type Signal } from './signal.ts';
import { formatTopic, parseTopic, topicFilter } from './topics.ts';

export interface SignallingOptions {
  readonly fleet: Name;
  readonly device: Name;
  /** Counts the starts of the daemon; kept on flash and raised before each start. */
  readonly bootId: number;
  /** Ed25519 public key of this device, 32 bytes. */
  readonly deviceKey: Uint8Array;
  readonly random: Random;
  readonly crypto: Crypto;
}

/** XChaCha20-Poly1305, 32 bytes each, of `PairSecrets`. */
export interface SignalKeys {
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
}

export type SignalEvent =
  | {
      readonly type: 'signal';
      readonly peer: Name;
      /** The complete list. */
      readonly candidates: readonly Candidate[];
      /** Ed25519 public key of the peer's device, 32 bytes. */
      readonly deviceKey: Uint8Array;
      /** Whether the peer's daemon has started since its last signal to us. */
      readonly isRestart: boolean;
    }
  /**
   * Somebody signals under the name of this peer with another key: its public key here is wrong, or ours
   * there, or it is an impostor. Told at most every 60 s, as anybody at the broker can cause it.
   */
  | { readonly type: 'key-mismatch'; readonly peer: Name };

/** Why a signal changed nothing. */
export type SignalDrop =
  | 'unknown-peer'
  | 'malformed'
  | 'not-authentic'
  /** Authentic, but from or to another device than the topic says. */
  | 'misaddressed'
  /** Not newer than the last: brokers repeat messages, and may replay them. */
  | 'replayed';

const SEND_INTERVAL: Millis = 200;
const MISMATCH_INTERVAL: Millis = 60_000;
/** Where a broker comes back to a device of many peers, its signals are spread over this time. */
const RECONNECT_SPREAD: Millis = 2_000;
const MOST_PEERS_AT_ONCE = 10;
/** Seconds for which a broker keeps a signal for a peer that is away: later ones are of no use. */
const SIGNAL_EXPIRY = 60;
/** The driver takes events after each input, which makes one at most. The oldest gives way. */
const MAX_EVENTS = 64;

interface Peer {
  readonly keys: SignalKeys;
  /** What it is to be told; nothing before the first `send`. */
  candidates: readonly Candidate[] | undefined;
  sentAt: Instant | undefined;
  lastSeen: Pick<Signal, 'boot' | 'seq'> | undefined;
  mismatchToldAt: Instant | undefined;
}

export class Signalling {
  readonly #options: SignallingOptions;
  readonly #peers = new Map<Name, Peer>();
  /** Peers whose signal goes out now. */
  readonly #ready = new Set<Name>();
  /** Peers whose signal goes out later, and when. */
  #due = dueSignals();
  readonly #events = new BoundedQueue<SignalEvent>(MAX_EVENTS, 'oldest');
  readonly #drops: Record<SignalDrop, number> = {
    'unknown-peer': 0,
    malformed: 0,
    'not-authentic': 0,
    misaddressed: 0,
    replayed: 0,
  };
  #isConnected = false;
  /** Counts all signals of this start: the order of those to one peer survives its removal. */
  #seq = 0;
  #now = instantAt(0);

  constructor(options: SignallingOptions) {
    this.#options = options;
  }

  /** Topic filters that the control channel subscribes to. */
  get subscriptions(): readonly string[] {
    return [topicFilter(this.#options.fleet, this.#options.device, 'signal')];
  }

  /** Signals dropped since the start, by reason. */
  get drops(): Readonly<Record<SignalDrop, number>> {
    return this.#drops;
  }

  /** Adds a peer. With other keys than before it is another peer: nothing of the old one is kept. */
  setPeer(id: Name, keys: SignalKeys): void {
    const before = this.#peers.get(id);
    if (before !== undefined && areEqual(before.keys, keys)) return;
    this.removePeer(id);
    this.#peers.set(id, {
      keys,
      candidates: undefined,
      sentAt: undefined,
      lastSeen: undefined,
      mismatchToldAt: undefined,
    });
  }

  removePeer(id: Name): void {
    this.#peers.delete(id);
    this.#ready.delete(id);
    this.#due.delete(id);
  }

  /** Tells the peer all candidates of this device, in place of those before. Ignores an unknown peer. */
  send(id: Name, candidates: readonly Candidate[], now: Instant): void {
    this.#now = now;
    const peer = this.#peers.get(id);
    if (peer === undefined) return;
    peer.candidates = candidates.slice();
    this.#schedule(id, peer, now);
  }

  /** Messages on other topics than ours are for others and ignored. */
  handleControl(event: ControlEvent, now: Instant): void {
    this.#now = now;
    switch (event.type) {
      case 'connected':
        this.#isConnected = true;
        return this.#sendAll(now);
      case 'disconnected':
        this.#isConnected = false;
        this.#ready.clear();
        this.#due = dueSignals();
        return;
      case 'message':
        return this.#receive(event.topic, event.payload, now);
    }
  }

  handleTimeout(now: Instant): void {
    this.#now = now;
    for (const [id] of this.#due.handleTimeout(now)) this.#ready.add(id);
  }

  pollTransmit(): Publication | undefined {
    for (const id of this.#ready) {
      this.#ready.delete(id);
      const peer = this.#peers.get(id);
      if (peer?.candidates === undefined) continue;
      peer.sentAt = this.#now;
      return this.#publication(id, peer.keys.sendKey, peer.candidates);
    }
    return undefined;
  }

  pollEvent(): SignalEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    const isQueued = this.#ready.size > 0 || this.#events.length > 0;
    return isQueued ? { at: this.#now, reason: 'queued' } : this.#due.pollTimeout();
  }

  /** Sends the newest signal at this time, or later where the rate demands it; an earlier plan stays. */
  #schedule(id: Name, peer: Peer, wanted: Instant): void {
    if (!this.#isConnected || peer.candidates === undefined || this.#ready.has(id)) return;
    const allowed = peer.sentAt === undefined ? wanted : after(peer.sentAt, SEND_INTERVAL);
    const at = allowed > wanted ? allowed : wanted;
    const planned = this.#due.get(id);
    if (planned !== undefined && planned <= at) return;
    if (at > this.#now) {
      this.#due.set(id, at, this.#now, elapsed(this.#now, at));
    } else {
      this.#due.delete(id);
      this.#ready.add(id);
    }
  }

  #sendAll(now: Instant): void {
    const spread = this.#peers.size > MOST_PEERS_AT_ONCE ? RECONNECT_SPREAD : 0;
    for (const [id, peer] of this.#peers) {
      const jitter = spread === 0 ? 0 : spread * randomFraction(this.#options.random);
      this.#schedule(id, peer, after(now, jitter));
    }
  }

  #receive(topic: string, payload: Uint8Array, now: Instant): void {
    const { fleet, device, crypto } = this.#options;
    const parsed = parseTopic(topic);
    if (parsed?.kind !== 'signal' || parsed.fleet !== fleet || parsed.device !== device) return;
    const { from } = parsed;
    const peer = this.#peers.get(from);
    if (peer === undefined) return this.#drop('unknown-peer');
    const opened = openSignal(payload, topic, peer.keys.receiveKey, crypto);
    if (!opened.ok) {
      if (opened.why === 'not-authentic') this.#tellMismatch(from, peer, now);
      return this.#drop(opened.why);
    }
    const signal = opened.value;
    const { lastSeen } = peer;
    if (signal.from !== from || signal.to !== device) return this.#drop('misaddressed');
    if (lastSeen !== undefined && !isNewer(signal, lastSeen)) return this.#drop('replayed');

    peer.lastSeen = { boot: signal.boot, seq: signal.seq };
    const isRestart = lastSeen !== undefined && signal.boot > lastSeen.boot;
    const { candidates, deviceKey } = signal;
    this.#events.push({ type: 'signal', peer: from, candidates, deviceKey, isRestart });
    // After a while, since its owner mostly has new candidates to tell a peer that started.
    const isStart = lastSeen === undefined || isRestart;
    if (isStart) this.#schedule(from, peer, after(now, SEND_INTERVAL));
  }

  #tellMismatch(id: Name, peer: Peer, now: Instant): void {
    const { mismatchToldAt } = peer;
    if (mismatchToldAt !== undefined && elapsed(mismatchToldAt, now) < MISMATCH_INTERVAL) return;
    peer.mismatchToldAt = now;
    this.#events.push({ type: 'key-mismatch', peer: id });
  }

  #drop(why: SignalDrop): void {
    this.#drops[why]++;
  }

  #publication(to: Name, key: Uint8Array, candidates: readonly Candidate[]): Publication {
    const { fleet, device: from, bootId: boot, deviceKey } = this.#options;
    const topic = formatTopic({ fleet, device: to, kind: 'signal', from });
    const signal = { from, to, boot, seq: ++this.#seq, candidates, deviceKey };
    const payload = sealSignal(signal, topic, key, this.#options);
    return { topic, payload, retain: false, qos: 1, expiry: SIGNAL_EXPIRY };
  }
}

function dueSignals(): ExpiringMap<Name, Instant> {
  return new ExpiringMap(LIMITS.peers, 'signal due');
}

function isNewer(signal: Signal, last: Pick<Signal, 'boot' | 'seq'>): boolean {
  return signal.boot > last.boot || (signal.boot === last.boot && signal.seq > last.seq);
}

function areEqual(a: SignalKeys, b: SignalKeys): boolean {
  return (
    equalInConstantTime(a.sendKey, b.sendKey) && equalInConstantTime(a.receiveKey, b.receiveKey)
  );
}
