import { Wireguard, type WireguardEvent } from '../../../core/wireguard/wireguard.ts';
import { ReplayWindow } from './replay-window.ts';
import type { PeerSettings } from '../../../core/wireguard/wireguard.ts';
import { parseSocketAddress, type SocketAddress } from '../../../core/net/socket-address.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import type { Random } from '../../../core/sansio/random.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';

/*
 * WireGuard hosts on a virtual clock, joined by links that lose, delay, repeat and reorder. A host is the
 * agent under test with a plain packet path around it: it seals and opens with the real cipher.
 */

export const crypto = createNobleCrypto();

/** sfc32: the same numbers for the same seed, on every version of everything. */
export class SeededRandom implements Random {
  readonly #state: Uint32Array;

  constructor(seed: number) {
    this.#state = Uint32Array.of(0x9e3779b9, 0x243f6a88, 0xb7e15162, seed);
    for (let i = 0; i < 15; i++) this.word();
  }

  word(): number {
    const [a = 0, b = 0, c = 0, d = 0] = this.#state;
    const word = (a + b + d) >>> 0;
    this.#state.set([b ^ (b >>> 9), c + (c << 3), ((c << 21) | (c >>> 11)) + word, d + 1]);
    return word;
  }

  fraction(): number {
    return this.word() / 2 ** 32;
  }

  below(limit: number): number {
    return Math.floor(this.fraction() * limit);
  }

  fill(out: Uint8Array): void {
    for (let i = 0; i < out.length; i++) out[i] = this.word();
  }
}

export interface Datagram {
  readonly from: SocketAddress;
  readonly to: SocketAddress;
  readonly payload: Uint8Array;
}

/** When the copies of a datagram arrive, in milliseconds from its sending; none: it is lost. */
export type Link = (datagram: Datagram, now: Instant) => readonly number[];

export const FAST: Link = () => [20];

export function lossyLink(random: SeededRandom, loss: number): Link {
  const delay = () => 1 + random.fraction() * 80;
  return () => {
    if (random.fraction() < loss) return [];
    return random.fraction() < 0.2 ? [delay(), delay()] : [delay()];
  };
}

export const UNIX_MS = 1_790_000_000_000;

interface PathSession {
  readonly localIndex: number;
  readonly remoteIndex: number;
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  readonly window: ReplayWindow;
  sent: number;
}

export class Host {
  readonly wireguard: Wireguard;
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
  address: SocketAddress;
  /** What happened, with its time. */
  readonly events: { readonly at: Instant; readonly event: WireguardEvent }[] = [];
  /** The packets that arrived, as text. */
  readonly delivered: string[] = [];
  /** Every datagram that left, with its time. */
  readonly sent: { readonly at: Instant; readonly datagram: Datagram }[] = [];
  readonly sessions = new Map<number, PathSession>();
  readonly #current = new Map<number, number>();
  readonly #staged = new Map<number, string[]>();
  #out: Datagram[] = [];

  constructor(address: string, seed: number, now: Instant, unixMs = UNIX_MS) {
    const random = new SeededRandom(seed);
    const privateKey = new Uint8Array(32);
    random.fill(privateKey);
    this.address = at(address);
    this.privateKey = privateKey;
    this.publicKey = crypto.x25519.publicKey(privateKey);
    const options = { crypto, random, log: nullLog, privateKey, unixMs };
    this.wireguard = new Wireguard(options, now);
  }

  setPeer(
    peer: number,
    other: Pick<Host, 'publicKey'>,
    now: Instant,
    settings: Partial<PeerSettings> = {},
  ): void {
    const { publicKey } = other;
    const outcome = this.wireguard.setPeer(
      peer,
      { publicKey, persistentKeepalive: 0, rekeyAttemptTime: 90_000, ...settings },
      now,
    );
    if (!outcome.ok) throw new Error(outcome.why);
    this.settle(now);
  }

  /** Sends a packet, or keeps it until there is a session. */
  send(peer: number, text: string, now: Instant): void {
    if (this.#seal(peer, text, now)) return;
    const staged = this.#staged.get(peer) ?? [];
    this.#staged.set(peer, [...staged, text]);
    this.wireguard.handlePacketWithoutSession(peer, now);
    this.settle(now);
  }

  receive({ payload, from }: Datagram, now: Instant): void {
    if (payload[0] === 4 && payload.length >= 32) this.#open(payload, from, now);
    else this.wireguard.handleDatagram({ payload, from }, now);
    this.settle(now);
  }

  handleTimeout(now: Instant): void {
    this.wireguard.handleTimeout(now);
    this.settle(now);
  }

  /** Does what the agent asks for, until it asks for nothing more. */
  settle(now: Instant): void {
    for (;;) {
      const transmit = this.wireguard.pollTransmit();
      if (transmit !== undefined) this.#transmit(transmit.to, transmit.payload, now);
      const event = this.wireguard.pollEvent();
      if (event !== undefined) this.#handleEvent(event, now);
      if (transmit === undefined && event === undefined) return;
    }
  }

  takeDatagrams(): readonly Datagram[] {
    const out = this.#out;
    this.#out = [];
    return out;
  }

  eventsOf<T extends WireguardEvent['type']>(type: T): Extract<WireguardEvent, { type: T }>[] {
    const all = this.events.map(({ event }) => event);
    return all.filter(
      (event): event is Extract<WireguardEvent, { type: T }> => event.type === type,
    );
  }

  timesOf(type: WireguardEvent['type']): number[] {
    return this.events.filter(({ event }) => event.type === type).map(({ at }) => at);
  }

  /** The times at which messages of this type left: 1 initiation, 2 response, 3 cookie reply, 4 transport. */
  sentTimes(type: number): number[] {
    return this.sent.filter(({ datagram }) => datagram.payload[0] === type).map(({ at }) => at);
  }

  #handleEvent(event: WireguardEvent, now: Instant): void {
    this.events.push({ at: now, event });
    const { peer } = event;
    switch (event.type) {
      case 'session-created': {
        const { localIndex, remoteIndex, sendKey, receiveKey } = event;
        const window = new ReplayWindow();
        const session = { localIndex, remoteIndex, sendKey, receiveKey, window, sent: 0 };
        if (this.sessions.has(localIndex)) throw new Error('an index in use was given again');
        this.sessions.set(localIndex, session);
        break;
      }
      case 'session-activated': {
        this.#current.set(peer, event.localIndex);
        const staged = this.#staged.get(peer) ?? [];
        this.#staged.delete(peer);
        for (const text of staged) this.#seal(peer, text, now);
        break;
      }
      case 'session-dropped':
        if (!this.sessions.delete(event.localIndex)) throw new Error('dropped an unknown session');
        if (this.#current.get(peer) === event.localIndex) this.#current.delete(peer);
        break;
      case 'keepalive-due':
        this.#seal(peer, '', now);
        break;
      case 'handshake-failed':
        this.#staged.delete(peer);
        break;
      case 'endpoint-changed':
      case 'source-changed':
      case 'handshake-completed':
        break;
    }
  }

  #seal(peer: number, text: string, now: Instant): boolean {
    const session = this.sessions.get(this.#current.get(peer) ?? -1);
    const to = this.wireguard.peerStatus(peer)?.endpoint;
    if (session === undefined || to === undefined) return false;
    const counter = session.sent++;
    const plain = new TextEncoder().encode(text);
    const sealed = crypto.chacha20poly1305.seal(session.sendKey, nonce(counter), plain, EMPTY);
    const payload = new Uint8Array(16 + sealed.length);
    const view = new DataView(payload.buffer);
    view.setUint32(0, 4, true);
    view.setUint32(4, session.remoteIndex, true);
    view.setBigUint64(8, BigInt(counter), true);
    payload.set(sealed, 16);
    this.#transmit(to, payload, now);
    this.#tell(peer, { sentData: text !== '', sentKeepalive: text === '' }, now);
    return true;
  }

  #open(payload: Uint8Array, from: SocketAddress, now: Instant): void {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    const session = this.sessions.get(view.getUint32(4, true));
    if (session === undefined) return;
    const counter = view.getBigUint64(8, true);
    const sealed = payload.subarray(16);
    const { receiveKey, localIndex } = session;
    const plain = crypto.chacha20poly1305.open(receiveKey, nonce(Number(counter)), sealed, EMPTY);
    if (plain === undefined || !session.window.accept(counter)) return;
    if (plain.length > 0) this.delivered.push(new TextDecoder().decode(plain));
    this.#tell(
      localIndex >>> 8,
      {
        receivedData: plain.length > 0,
        receivedKeepalive: plain.length === 0,
        receivedOn: localIndex,
        roamedTo: from,
      },
      now,
    );
  }

  #tell(
    peer: number,
    facts: Partial<Parameters<Wireguard['handleTransport']>[0]>,
    now: Instant,
  ): void {
    const session = this.sessions.get(this.#current.get(peer) ?? -1);
    this.wireguard.handleTransport(
      {
        peer,
        sentData: false,
        sentKeepalive: false,
        receivedData: false,
        receivedKeepalive: false,
        sendCounter: session?.sent ?? 0,
        ...facts,
      },
      now,
    );
    this.settle(now);
  }

  #transmit(to: SocketAddress, payload: Uint8Array, now: Instant): void {
    const datagram = { from: this.address, to, payload };
    this.sent.push({ at: now, datagram });
    this.#out.push(datagram);
  }
}

export class Network {
  now: Instant = instantAt(1000);
  link: Link;
  readonly hosts: Host[] = [];
  #flying: { readonly at: Instant; readonly sequence: number; readonly datagram: Datagram }[] = [];
  #sequence = 0;

  constructor(link: Link = FAST) {
    this.link = link;
  }

  addHost(address: string, seed: number): Host {
    const host = new Host(address, seed, this.now);
    this.hosts.push(host);
    return host;
  }

  /** Lets `ms` pass, going from one deadline or arrival to the next. */
  run(ms: number, options: { readonly tick?: number } = {}): void {
    const end = this.now + ms;
    let tick = this.now + (options.tick ?? Infinity);
    for (let steps = 0; ; steps++) {
      if (steps > 200_000) throw new Error('no end of steps');
      this.#collect();
      const next = Math.min(this.#nextArrival(), this.#nextDeadline(), tick);
      if (next > end) break;
      if (next < this.now) throw new Error('a deadline in the past');
      this.now = instantAt(next);
      if (next === tick) {
        for (const host of this.hosts) host.handleTimeout(this.now);
        tick += options.tick ?? Infinity;
      }
      this.#deliver();
      for (const host of this.hosts) {
        const due = host.wireguard.pollTimeout();
        if (due === undefined || due.at > this.now) continue;
        host.handleTimeout(this.now);
        const left = host.wireguard.pollTimeout();
        if (left !== undefined && left.at <= this.now) throw new Error(`spins on ${left.reason}`);
      }
    }
    this.now = instantAt(end);
  }

  #collect(): void {
    for (const host of this.hosts) {
      for (const datagram of host.takeDatagrams()) {
        for (const delay of this.link(datagram, this.now)) {
          const sequence = this.#sequence++;
          this.#flying.push({ at: instantAt(this.now + delay), sequence, datagram });
        }
      }
    }
  }

  #deliver(): void {
    const arrived = this.#flying.filter(({ at }) => at <= this.now);
    this.#flying = this.#flying.filter(({ at }) => at > this.now);
    arrived.sort((a, b) => a.at - b.at || a.sequence - b.sequence);
    for (const { datagram } of arrived) {
      const host = this.hosts.find(({ address }) => address === datagram.to);
      host?.receive(datagram, this.now);
    }
  }

  #nextArrival(): number {
    return Math.min(...this.#flying.map(({ at }) => at));
  }

  #nextDeadline(): number {
    return Math.min(...this.hosts.map((host) => host.wireguard.pollTimeout()?.at ?? Infinity));
  }
}

export function at(address: string): SocketAddress {
  const parsed = parseSocketAddress(address);
  if (!parsed.ok) throw new Error(parsed.why);
  return parsed.value;
}

/** Two hosts that know each other as peer 7 and 9. */
export function createPair(
  options: {
    readonly seed?: number;
    readonly link?: Link;
    readonly left?: Partial<PeerSettings>;
    readonly right?: Partial<PeerSettings>;
  } = {},
): { network: Network; left: Host; right: Host } {
  const seed = options.seed ?? 1;
  const network = new Network(options.link);
  const left = network.addHost('192.0.2.1:51820', seed * 2);
  const right = network.addHost('[2001:db8::2]:51820', seed * 2 + 1);
  left.setPeer(TO_RIGHT, right, network.now, { endpoint: right.address, ...options.left });
  right.setPeer(TO_LEFT, left, network.now, { endpoint: left.address, ...options.right });
  return { network, left, right };
}

/** Gives a changed message a valid mac1, which anyone who knows the public key can do. */
export function withMac1(message: Uint8Array, receiver: Uint8Array): Uint8Array {
  const bytes = message.slice();
  const key = crypto.blake2s.hash(new TextEncoder().encode('mac1----'), receiver);
  bytes.set(crypto.blake2s.mac(key, bytes.subarray(0, -32)), bytes.length - 32);
  return bytes;
}

export const TO_RIGHT = 7;
export const TO_LEFT = 9;

const EMPTY = new Uint8Array(0);

function nonce(counter: number): Uint8Array {
  const bytes = new Uint8Array(12);
  new DataView(bytes.buffer).setBigUint64(4, BigInt(counter), true);
  return bytes;
}
