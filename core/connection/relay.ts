import { formatRelayUrl, type RelayUrl } from '../config/relay-url.ts';
import type { RelayConfiguration } from '../config/configuration.ts';
import { parseIpAddress, type IpAddress } from '../net/ip-address.ts';
import { socketAddress, type SocketAddress } from '../net/socket-address.ts';
import type { DialTarget, StreamId } from '../plugin/streams.ts';
import { earliest, type Deadline } from '../sansio/agent.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { after, elapsed, type Instant, type Millis } from '../sansio/instant.ts';
import type { Log } from '../sansio/log.ts';
import { randomFraction, type Random } from '../sansio/random.ts';
import { BindingClient } from '../stun/binding.ts';
import { Allocation, type AllocationFailure, type TurnCredentials } from '../turn/allocation.ts';
import { TurnStreamFraming } from '../turn/stream-framing.ts';
import type { RelayOutputs } from './relay-outputs.ts';

/** The URL of a relay as configured: its name everywhere. */
export type RelayId = string;

export type RelayFailure = AllocationFailure | 'not-resolved' | 'not-reachable' | 'no-answer';

export type RelayState =
  /** Its name is being looked up, or it failed and waits for the next try. */
  | { readonly type: 'waiting'; readonly why: RelayFailure | undefined }
  /** A stream to it is being opened, or it is being asked. */
  | { readonly type: 'connecting' }
  | { readonly type: 'ready' };

export type RelayEvent =
  /** Its name is to be looked up. */
  | { readonly type: 'resolve'; readonly relay: RelayId; readonly host: string }
  | {
      readonly type: 'dial';
      readonly relay: RelayId;
      readonly stream: StreamId;
      readonly target: DialTarget;
    }
  | { readonly type: 'hang-up'; readonly relay: RelayId; readonly stream: StreamId }
  /** Relayed addresses came or went, or our address as it sees it. */
  | { readonly type: 'relay-changed'; readonly relay: RelayId }
  /** Its relayed addresses are void. Each cause is told once until it is ready again. */
  | {
      readonly type: 'relay-failed';
      readonly relay: RelayId;
      readonly why: RelayFailure;
      readonly detail: string;
    }
  | { readonly type: 'channel-refused'; readonly relay: RelayId; readonly peer: SocketAddress }
  | {
      readonly type: 'relayed-data';
      readonly relay: RelayId;
      readonly peer: SocketAddress;
      readonly payload: Uint8Array;
    };

/** A message for a server; a stream frames it itself. */
export interface RelayTransmit {
  readonly to: SocketAddress;
  readonly stream?: StreamId;
  readonly payload: Uint8Array;
}

export interface RelayOptions {
  readonly random: Random;
  readonly crypto: Crypto;
  readonly log: Log;
  /** SOFTWARE of our messages. */
  readonly software: string;
  /** Names this device in minted credentials. */
  readonly device: string;
  unixMs(now: Instant): number;
  /** Makes the number of a stream that is about to be dialled. */
  nextStream(): StreamId;
}

/** Failures told until it is ready, each once. */
const MOST_TOLD = 16;
const FIRST_RETRY: Millis = 1_000;
const LAST_RETRY: Millis = 60_000;
const MOST_DOUBLINGS = Math.ceil(Math.log2(LAST_RETRY / FIRST_RETRY));
/** A name is asked for again after this long without an answer. */
const RESOLVE_PATIENCE: Millis = 15_000;
/** A server is asked whether all is as before at most this often, however many doubt it. */
const DOUBT_INTERVAL: Millis = 2_000;

type Server =
  | { readonly type: 'none' }
  | { readonly type: 'dialling'; readonly address: SocketAddress; readonly stream: StreamId }
  | {
      readonly type: 'turn';
      readonly address: SocketAddress;
      readonly stream: StreamId | undefined;
      readonly framing: TurnStreamFraming | undefined;
      readonly allocation: Allocation;
    }
  | { readonly type: 'stun'; readonly address: SocketAddress; readonly client: BindingClient };

/**
 * One configured STUN or TURN server: finds it, keeps our allocation there, and tries again for ever.
 *
 * A doubt has it asked whether it knows us still, while what we know of it stays: only an answer, or none to
 * four requests within 8 s, changes that. A server that fails is not asked for doubts, but when its time
 * has come; a change of our network brings that forward.
 */
export class Relay {
  readonly id: RelayId;
  readonly #configuration: RelayConfiguration;
  readonly #options: RelayOptions;
  readonly #outputs: RelayOutputs;
  #server: Server = { type: 'none' };
  #state: RelayState = { type: 'waiting', why: undefined };
  #lastFailure: { readonly why: RelayFailure; readonly detail: string } | undefined;
  #untried: readonly IpAddress[] = [];
  #mapped: SocketAddress | undefined;
  /** The addresses that were told last; `undefined` since a failure. */
  #told: string | undefined;
  /** Causes that were told since it was ready. */
  readonly #toldFailures = new Set<string>();
  #failures = 0;
  #retryAt: Instant | undefined;
  #doubtedAt: Instant | undefined;
  /** When it is asked after a change of the network that came right after a doubt. */
  #askAt: Instant | undefined;

  constructor(
    configuration: RelayConfiguration,
    options: RelayOptions,
    outputs: RelayOutputs,
    now: Instant,
  ) {
    this.id = formatRelayUrl(configuration.url);
    this.#configuration = configuration;
    this.#options = options;
    this.#outputs = outputs;
    this.#seek(now);
  }

  get state(): RelayState {
    return this.#state;
  }

  /** Why it is not ready, also while it is tried again. */
  get lastFailure(): { readonly why: RelayFailure; readonly detail: string } | undefined {
    return this.#lastFailure;
  }

  get url(): RelayUrl {
    return this.#configuration.url;
  }

  get configuration(): RelayConfiguration {
    return this.#configuration;
  }

  /** Where it is, once known. */
  get address(): SocketAddress | undefined {
    return this.#server.type === 'none' ? undefined : this.#server.address;
  }

  get stream(): StreamId | undefined {
    const server = this.#server;
    return server.type === 'turn' || server.type === 'dialling' ? server.stream : undefined;
  }

  get relayed(): readonly SocketAddress[] {
    return this.#state.type === 'ready' && this.#server.type === 'turn'
      ? this.#server.allocation.relayed
      : [];
  }

  /** Whether it is a TURN server that has an allocation for us, or had one until just now. */
  get isRelaying(): boolean {
    return this.#state.type === 'ready' && this.#server.type === 'turn';
  }

  /** Our address as it sees it over UDP: a server-reflexive one. */
  get mapped(): SocketAddress | undefined {
    return this.#state.type === 'ready' && this.stream === undefined ? this.#mapped : undefined;
  }

  get rtt(): Millis | undefined {
    if (this.#server.type === 'turn') return this.#server.allocation.rtt;
    return this.#server.type === 'stun' ? this.#server.client.rtt : undefined;
  }

  channelTo(peer: SocketAddress, now: Instant): number | undefined {
    const channel =
      this.#server.type === 'turn' ? this.#server.allocation.channelTo(peer, now) : undefined;
    this.#settle(now);
    return channel;
  }

  peerOf(channel: number): SocketAddress | undefined {
    return this.#server.type === 'turn' ? this.#server.allocation.peerOf(channel) : undefined;
  }

  /** Data went through the channel. */
  handleTraffic(channel: number, now: Instant): void {
    if (this.#server.type === 'turn') this.#server.allocation.handleTraffic(channel, now);
  }

  handleMessage(message: Uint8Array, now: Instant): void {
    if (this.#server.type === 'turn') this.#server.allocation.handleMessage(message, now);
    if (this.#server.type === 'stun') this.#server.client.handleMessage(message, now);
    this.#settle(now);
  }

  /** Returns the frames of the stream so far; lent until the next call. */
  takeFrames(bytes: Uint8Array, now: Instant): readonly Uint8Array[] {
    const framing = this.#server.type === 'turn' ? this.#server.framing : undefined;
    if (framing === undefined) return [];
    framing.push(bytes);
    const frames: Uint8Array[] = [];
    for (let frame = framing.next(); frame; frame = framing.next()) frames.push(frame);
    if (framing.isBroken) this.#fail('refused', 'speaks another protocol', now);
    return frames;
  }

  handleResolved(addresses: readonly IpAddress[], now: Instant): void {
    if (this.#server.type !== 'none') return;
    if (addresses.length === 0) return this.#fail('not-resolved', 'its name does not resolve', now);
    this.#try(addresses, now);
  }

  handleOpened(now: Instant): void {
    if (this.#server.type !== 'dialling') return;
    const { address, stream } = this.#server;
    this.#ask(address, stream, now);
  }

  handleClosed(why: string, now: Instant): void {
    if (this.stream !== undefined) this.#fail('not-reachable', why, now, true);
  }

  /** Where there is no path: is the allocation still ours, and our address that of the NAT? */
  handleDoubt(now: Instant): void {
    if (this.#state.type !== 'ready' || this.#isDoubtedLately(now)) return;
    this.#doubtedAt = now;
    this.#check(now);
  }

  /** Our addresses or routes changed: the same, and what failed is worth another try. */
  handleNetworkChange(now: Instant): void {
    this.#askAt = undefined;
    if (this.#doubtedAt !== undefined && this.#isDoubtedLately(now)) {
      this.#askAt = after(this.#doubtedAt, DOUBT_INTERVAL);
      return;
    }
    this.#doubtedAt = now;
    this.#failures = 0;
    if (this.#server.type === 'none') this.#seek(now);
    this.#check(now);
  }

  close(now: Instant): void {
    if (this.#server.type === 'turn') {
      this.#server.allocation.close(now);
      this.#drainTransmits(now);
    }
    this.#hangUp(now);
    this.#server = { type: 'none' };
    this.#state = { type: 'waiting', why: undefined };
    this.#retryAt = undefined;
    this.#askAt = undefined;
  }

  handleTimeout(now: Instant): void {
    if (this.#retryAt !== undefined && this.#retryAt <= now) this.#seek(now);
    if (this.#askAt !== undefined && this.#askAt <= now) this.handleNetworkChange(now);
    if (this.#server.type === 'turn') this.#server.allocation.handleTimeout(now);
    if (this.#server.type === 'stun') this.#server.client.handleTimeout(now);
    this.#settle(now);
  }

  pollTimeout(): Deadline | undefined {
    const server = this.#server;
    return earliest(
      server.type === 'turn' ? server.allocation.pollTimeout() : undefined,
      server.type === 'stun' ? server.client.pollTimeout() : undefined,
      this.#retryAt === undefined ? undefined : { at: this.#retryAt, reason: 'try a relay again' },
      this.#askAt === undefined ? undefined : { at: this.#askAt, reason: 'ask a relay again' },
    );
  }

  #isDoubtedLately(now: Instant): boolean {
    return this.#doubtedAt !== undefined && elapsed(this.#doubtedAt, now) < DOUBT_INTERVAL;
  }

  #check(now: Instant): void {
    if (this.#server.type === 'turn') this.#server.allocation.refresh(now);
    if (this.#server.type === 'stun') this.#server.client.ask(now);
    this.#settle(now);
  }

  #seek(now: Instant): void {
    this.#retryAt = undefined;
    if (this.#untried.length > 0) return this.#try(this.#untried, now);
    const { host } = this.#configuration.url.endpoint;
    const ip = parseIpAddress(host);
    if (ip.ok) return this.#try([ip.value], now);
    this.#retryAt = after(now, RESOLVE_PATIENCE);
    this.#outputs.tell({ type: 'resolve', relay: this.id, host }, now);
  }

  #try([first, ...untried]: readonly IpAddress[], now: Instant): void {
    this.#retryAt = undefined;
    this.#untried = untried;
    if (first === undefined) return;
    const { transport, endpoint } = this.#configuration.url;
    const address = socketAddress(first, endpoint.port);
    this.#state = { type: 'connecting' };
    if (transport === 'udp') return this.#ask(address, undefined, now);
    const stream = this.#options.nextStream();
    this.#server = { type: 'dialling', address, stream };
    const isName = this.#isNamed;
    // A relay sees sealed datagrams and our credentials' HMAC, and appliances run it by address.
    const trust = isName ? ({ type: 'authorities' } as const) : ({ type: 'any' } as const);
    const name = isName ? { host: endpoint.host } : {};
    const target = { protocol: transport, address, ...name, trust };
    this.#outputs.tell({ type: 'dial', relay: this.id, stream, target }, now);
  }

  #ask(address: SocketAddress, stream: StreamId | undefined, now: Instant): void {
    const { random, crypto, log, software } = this.#options;
    const unixMs = (at: Instant) => this.#options.unixMs(at);
    this.#state = { type: 'connecting' };
    if (this.#configuration.url.service === 'stun') {
      const client = new BindingClient({ random, crypto, software }, now);
      this.#server = { type: 'stun', address, client };
    } else {
      const transport = stream === undefined ? 'udp' : 'stream';
      const credentials = this.#credentials();
      const allocation = new Allocation(
        { credentials, transport, software, unixMs, random, crypto, log },
        now,
      );
      const framing = stream === undefined ? undefined : new TurnStreamFraming();
      this.#server = { type: 'turn', address, stream, framing, allocation };
    }
    this.#settle(now);
  }

  #credentials(): TurnCredentials {
    const { username = '', credential = '', secret } = this.#configuration;
    return secret === undefined
      ? { type: 'long-term', username, password: credential }
      : { type: 'shared-secret', secret, id: this.#options.device };
  }

  #settle(now: Instant): void {
    this.#drainTransmits(now);
    if (this.#server.type === 'turn') this.#settleAllocation(this.#server.allocation, now);
    if (this.#server.type === 'stun') this.#settleBinding(this.#server.client, now);
    this.#drainTransmits(now);
  }

  #settleAllocation(allocation: Allocation, now: Instant): void {
    const relay = this.id;
    for (let event = allocation.pollEvent(); event; event = allocation.pollEvent()) {
      switch (event.type) {
        case 'allocated':
          this.#becomeReady(event.mapped, now);
          break;
        case 'failed':
          return this.#fail(event.why, event.code === undefined ? '' : `error ${event.code}`, now);
        case 'channel-refused':
          this.#outputs.tell({ type: 'channel-refused', relay, peer: event.peer }, now);
          break;
        case 'data':
          this.#outputs.tell({ ...event, type: 'relayed-data', relay }, now);
          break;
        case 'channel-bound':
          break;
      }
    }
  }

  #settleBinding(client: BindingClient, now: Instant): void {
    for (let event = client.pollEvent(); event; event = client.pollEvent()) {
      if (event.type === 'mapped') {
        this.#becomeReady(event.address, now);
        continue;
      }
      const why = event.why === 'refused' ? 'refused' : 'no-answer';
      // The name may lead to another server by now.
      if (this.#untried.length > 0 || this.#isNamed) return this.#fail(why, '', now);
      // Where there is but one address the client goes on asking by itself.
      this.#tellFailed(why, '', now);
    }
  }

  #becomeReady(mapped: SocketAddress, now: Instant): void {
    this.#failures = 0;
    this.#toldFailures.clear();
    this.#state = { type: 'ready' };
    this.#lastFailure = undefined;
    this.#mapped = mapped;
    const addresses = [mapped, ...this.relayed].join();
    if (addresses === this.#told) return;
    this.#told = addresses;
    this.#outputs.tell({ type: 'relay-changed', relay: this.id }, now);
  }

  #fail(why: RelayFailure, detail: string, now: Instant, isHungUp = false): void {
    if (!isHungUp) this.#hangUp(now);
    this.#server = { type: 'none' };
    this.#tellFailed(why, detail, now);
    if (this.#untried.length > 0) return this.#try(this.#untried, now);
    const longest = Math.min(LAST_RETRY, FIRST_RETRY * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, MOST_DOUBLINGS);
    const wait = longest * (0.5 + randomFraction(this.#options.random) / 2);
    this.#retryAt = after(now, wait);
  }

  #tellFailed(why: RelayFailure, detail: string, now: Instant): void {
    this.#state = { type: 'waiting', why };
    this.#lastFailure = { why, detail };
    this.#mapped = undefined;
    this.#told = undefined;
    const failure = `${why} ${detail}`;
    if (this.#toldFailures.has(failure) || this.#toldFailures.size >= MOST_TOLD) return;
    this.#toldFailures.add(failure);
    this.#outputs.tell({ type: 'relay-failed', relay: this.id, why, detail }, now);
  }

  #hangUp(now: Instant): void {
    const { stream } = this;
    if (stream === undefined) return;
    this.#outputs.tell({ type: 'hang-up', relay: this.id, stream }, now);
  }

  #drainTransmits(now: Instant): void {
    const server = this.#server;
    if (server.type !== 'turn' && server.type !== 'stun') return;
    const agent = server.type === 'turn' ? server.allocation : server.client;
    const { stream } = this;
    const to = { to: server.address, ...(stream === undefined ? {} : { stream }) };
    for (let payload = agent.pollTransmit(); payload; payload = agent.pollTransmit()) {
      this.#outputs.send({ ...to, payload }, now);
    }
  }

  get #isNamed(): boolean {
    return !parseIpAddress(this.#configuration.url.endpoint.host).ok;
  }
}
