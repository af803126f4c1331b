import type { ConnectionFailure } from '../../../core/connection/connection.ts';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { ICE_REKEY_ATTEMPT_TIME, ICE_REKEY_TIMEOUT } from '../../../core/wireguard/constants.ts';
import { Wireguard, type WireguardEvent } from '../../../core/wireguard/wireguard.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';

export type TunnelMessage =
  | { readonly type: 'wireguard'; readonly payload: Uint8Array }
  /** The first message under new keys; `index` is the receiver's. */
  | { readonly type: 'confirm'; readonly index: number }
  | { readonly type: 'data' }
  | { readonly type: 'initiation' }
  | { readonly type: 'response' };

/** What makes sessions over a connection. */
export interface Tunnel {
  readonly hasSession: boolean;
  /** What is known of why there is no session. */
  readonly suspicion: ConnectionFailure | undefined;
  setRemote(remote: SocketAddress | undefined, now: Instant): void;
  request(now: Instant): void;
  receive(message: TunnelMessage, from: SocketAddress, now: Instant): void;
  handleTimeout(now: Instant): void;
  deadline(): number;
  poll(): TunnelMessage | undefined;
  pollOutcome(): 'session' | ConnectionFailure | undefined;
}

/** Two messages, repeated each 5 s for 15 s, and a confirmation or data; sessions last for ever. */
export class SimulatedTunnel implements Tunnel {
  hasSession = false;
  readonly suspicion = undefined;
  #hasResponded = false;
  #until: number | undefined;
  #nextAt = Infinity;
  readonly #out: TunnelMessage[] = [];
  readonly #outcomes: ('session' | ConnectionFailure)[] = [];

  setRemote(): void {
    // The path is asked for when a message leaves.
  }

  request(now: Instant): void {
    if (this.#until !== undefined) return;
    this.#until = now + 15_000;
    this.#initiate(now);
  }

  receive(message: TunnelMessage): void {
    switch (message.type) {
      case 'initiation':
        this.#hasResponded = true;
        this.#out.push({ type: 'response' });
        return;
      case 'response':
        if (this.#until === undefined) return;
        this.#out.push({ type: 'confirm', index: 0 });
        return this.#complete();
      case 'confirm':
      case 'data':
        if (this.#hasResponded) this.#complete();
        return;
      case 'wireguard':
        return;
    }
  }

  handleTimeout(now: Instant): void {
    if (this.#until !== undefined && this.#until <= now) {
      this.#until = undefined;
      this.#nextAt = Infinity;
      this.#outcomes.push('no-session');
    } else if (this.#nextAt <= now) {
      this.#initiate(now);
    }
  }

  deadline(): number {
    return Math.min(this.#until ?? Infinity, this.#nextAt);
  }

  poll(): TunnelMessage | undefined {
    return this.#out.shift();
  }

  pollOutcome(): 'session' | ConnectionFailure | undefined {
    return this.#outcomes.shift();
  }

  #initiate(now: Instant): void {
    this.#out.push({ type: 'initiation' });
    this.#nextAt = now + 5000;
  }

  #complete(): void {
    this.hasSession = true;
    this.#hasResponded = false;
    this.#until = undefined;
    this.#nextAt = Infinity;
    this.#outcomes.push('session');
  }
}

/** The real protocol; only transport messages are simulated, by `confirm`. */
export class WireguardTunnel implements Tunnel {
  readonly wireguard: Wireguard;
  readonly events: { readonly at: Instant; readonly event: WireguardEvent }[] = [];
  readonly #remoteIndices = new Map<number, number>();
  readonly #out: TunnelMessage[] = [];
  readonly #outcomes: ('session' | ConnectionFailure)[] = [];
  #current: number | undefined;

  constructor(
    options: {
      readonly privateKey: Uint8Array;
      readonly peerKey: Uint8Array;
      readonly presharedKey: Uint8Array;
      readonly seed: number;
    },
    now: Instant,
  ) {
    const { privateKey, peerKey, seed, presharedKey } = options;
    const random = new SeededRandom(seed);
    this.wireguard = new Wireguard(
      {
        crypto: createNobleCrypto(),
        random,
        log: nullLog,
        privateKey: privateKey.slice(),
        unixMs: 1_790_000_000_000,
      },
      now,
    );
    this.setPeer(peerKey, presharedKey, now);
  }

  setPeer(publicKey: Uint8Array, presharedKey: Uint8Array, now: Instant): void {
    const rekeyAttemptTime = ICE_REKEY_ATTEMPT_TIME;
    const rekeyTimeout = ICE_REKEY_TIMEOUT;
    const settings = {
      publicKey,
      presharedKey,
      persistentKeepalive: 0,
      rekeyAttemptTime,
      rekeyTimeout,
    };
    const outcome = this.wireguard.setPeer(PEER, settings, now);
    if (!outcome.ok) throw new Error(outcome.why);
  }

  get hasSession(): boolean {
    return this.wireguard.peerStatus(PEER)?.hasSession === true;
  }

  get suspicion(): ConnectionFailure | undefined {
    return this.wireguard.peerStatus(PEER)?.suspicion;
  }

  setRemote(remote: SocketAddress | undefined, now: Instant): void {
    this.wireguard.setEndpoint(PEER, remote, now);
    this.#drain(now);
  }

  request(now: Instant): void {
    this.wireguard.requestHandshake(PEER, now);
    this.#drain(now);
  }

  receive(message: TunnelMessage, from: SocketAddress, now: Instant): void {
    if (message.type === 'wireguard') {
      this.wireguard.handleDatagram({ payload: message.payload, from }, now);
    } else if (message.type === 'confirm' && this.#remoteIndices.has(message.index)) {
      this.wireguard.handleTransport(
        { ...NO_FACTS, receivedKeepalive: true, receivedOn: message.index },
        now,
      );
    }
    this.#drain(now);
  }

  handleTimeout(now: Instant): void {
    this.wireguard.handleTimeout(now);
    this.#drain(now);
  }

  deadline(): number {
    return this.wireguard.pollTimeout()?.at ?? Infinity;
  }

  poll(): TunnelMessage | undefined {
    return this.#out.shift();
  }

  pollOutcome(): 'session' | ConnectionFailure | undefined {
    return this.#outcomes.shift();
  }

  /** The index under which the other side knows our session in use. */
  get currentRemoteIndex(): number | undefined {
    return this.#current === undefined ? undefined : this.#remoteIndices.get(this.#current);
  }

  #drain(now: Instant): void {
    for (;;) {
      const transmit = this.wireguard.pollTransmit();
      if (transmit !== undefined) this.#out.push({ type: 'wireguard', payload: transmit.payload });
      const event = this.wireguard.pollEvent();
      if (event !== undefined) this.#handleEvent(event, now);
      if (transmit === undefined && event === undefined) return;
    }
  }

  #handleEvent(event: WireguardEvent, now: Instant): void {
    this.events.push({ at: instantAt(now), event });
    switch (event.type) {
      case 'session-created':
        this.#remoteIndices.set(event.localIndex, event.remoteIndex);
        return;
      case 'session-activated':
        this.#current = event.localIndex;
        return;
      case 'session-dropped':
        this.#remoteIndices.delete(event.localIndex);
        return;
      case 'keepalive-due': {
        const index = this.currentRemoteIndex;
        if (index === undefined) return;
        this.#out.push({ type: 'confirm', index });
        return;
      }
      case 'handshake-completed':
        this.#outcomes.push('session');
        return;
      case 'handshake-failed':
        this.#outcomes.push(event.cause === 'no-response' ? 'no-session' : event.cause);
        return;
      case 'endpoint-changed':
      case 'source-changed':
        return;
    }
  }
}

const PEER = 0;

const NO_FACTS = {
  peer: PEER,
  sentData: false,
  sentKeepalive: false,
  receivedData: false,
  receivedKeepalive: false,
  sendCounter: 1,
};
