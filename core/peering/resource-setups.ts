import type { IpAddress } from '../net/ip-address.ts';
import { sooner, type Deadline } from '../sansio/agent.ts';
import { BoundedQueue } from '../sansio/bounded-queue.ts';
import { ExpiringMap } from '../sansio/expiring-map.ts';
import { elapsed, instantAt, type Instant, type Millis } from '../sansio/instant.ts';
import { unreachable } from '../sansio/outcome.ts';
import { HeldPackets } from './held-packets.ts';
import type { DomainStatus, PeeringMessage } from './message.ts';
import { PacedQueue } from './paced-queue.ts';
import { UseOrder, type Used } from './use-order.ts';

/** Packets that one set-up holds; the newest is dropped. */
export const MOST_HELD = 32;
/** Packets that all set-ups hold together; the newest is dropped. */
export const MOST_HELD_IN_ALL = 1024;
/** Between two messages of one set-up. */
export const RESEND_INTERVAL: Millis = 2_000;
/**
 * Without an answer for this long a set-up has failed; the next packet tries again. Counted in messages, so
 * that one which waits for its turn at a peer with many gets as many.
 */
export const SETUP_PATIENCE: Millis = 10_000;
/** Names in use; the one that was used longest ago gives way. */
export const MOST_SETUPS = 4096;
/**
 * Messages to one peer: so many at once, and so many a second after them. A peer reads 20
 * (`PEERING_MESSAGES_PER_SECOND`), and our answers to as many of its own are among them.
 */
export const SETUP_MESSAGES_PER_SECOND = 8;

/** What a gateway shall translate: a name of one of its resources. */
export interface SetupKey {
  /** Index of the gateway among the peers. */
  readonly peer: number;
  readonly resource: string;
  readonly domain: string;
}

/** For people: `pending` and `recreating` wait for the gateway. */
export type SetupState = 'pending' | 'confirmed' | 'recreating' | 'failed';

export interface SetupStatus extends SetupKey {
  readonly state: SetupState;
  /** Of a failed one: what the gateway said, or that it said nothing. */
  readonly why?: SetupFailure;
}

export type SetupFailure = Exclude<DomainStatus, 'active'> | 'no-answer';

export type ResourceSetupsEvent =
  /** Best effort: it is repeated by this state machine. */
  | { readonly type: 'send'; readonly peer: number; readonly message: PeeringMessage }
  /**
   * Packets of the set-up pass from now on, those held first; the gateway knows it, or refuses them itself.
   * Told whenever `isHeld` turns false, though none was held.
   */
  | { readonly type: 'released'; readonly key: SetupKey; readonly packets: readonly Uint8Array[] }
  /** Told once until it is confirmed again. */
  | { readonly type: 'failed'; readonly key: SetupKey; readonly why: SetupFailure };

/** Why a packet was dropped: when it came, or with the others when its set-up ended. */
export type SetupDrop = 'queue-full' | 'repeated' | 'no-answer' | 'forgotten';

/**
 * The client's side of resource NAT: asks gateways to translate the proxies of names, and knows whether they
 * do (DESIGN §7, `reference/firezone.md` §3.7). Packets of a new set-up are held until the gateway has
 * answered; once it was confirmed they pass, also while it is set up anew, and whatever comes of that. What
 * the gateway does not translate, it answers itself.
 *
 * It asks in rounds: a message each 2 s until there is an answer, or patience ends. A round begins with a
 * query for the name, with a packet that is held, or when the gateway does not know the proxies any more.
 */
export class ResourceSetups {
  /** Dropped packets by reason, named so that they stay apart among the drops of others. */
  readonly drops: Record<`setup-${SetupDrop}`, number> = {
    'setup-queue-full': 0,
    'setup-repeated': 0,
    'setup-no-answer': 0,
    'setup-forgotten': 0,
  };
  readonly #peers = new Map<number, Peer>();
  readonly #used = new UseOrder<Setup>();
  /** Those that wait for an answer, or to be sent again so soon. */
  readonly #resting = new ExpiringMap<Setup, undefined>(MOST_SETUPS, 'set-up unanswered');
  /** Peers for which more messages wait than they may be sent now. */
  readonly #paced = new ExpiringMap<Peer, undefined>(MOST_SETUPS, 'set-up waits for its turn');
  readonly #events = new BoundedQueue<ResourceSetupsEvent>(MOST_EVENTS, 'oldest');
  #heldInAll = 0;
  #now: Instant = instantAt(0);

  /** A client asked for the name: the gateway is to resolve it (again). At most one message each 2 s. */
  request(key: SetupKey, proxies: readonly IpAddress[], now: Instant): void {
    this.#now = now;
    const setup = this.#use(key, proxies);
    // Those for A and AAAA come together: a query joins the round that is under way.
    if (!isWaiting(setup.state)) this.#beginRound(setup);
    this.#sendWaiting(setup.peer);
  }

  /** Whether packets to the proxies are to be held. A set-up that is not known holds. Counts as a use. */
  isHeld(key: SetupKey): boolean {
    const setup = this.#find(key);
    if (setup === undefined) return true;
    this.#used.touch(setup);
    return isHolding(setup.state);
  }

  /**
   * A packet that is to be held, which is copied; begins the set-up where there is none, and anew where it
   * got no answer. One that need not be held is released at once.
   */
  hold(key: SetupKey, proxies: readonly IpAddress[], packet: Uint8Array, now: Instant): void {
    this.#now = now;
    const setup = this.#use(key, proxies);
    if (isHolding(setup.state) && !isWaiting(setup.state)) this.#beginRound(setup);
    if (setup.state.type === 'pending') {
      this.#keep(packet, setup.state.held);
      if (setup.peer.queue.has(setup)) this.#enqueue(setup);
    } else {
      this.#events.push({ type: 'released', key: setup.key, packets: [packet.slice()] });
    }
    this.#sendWaiting(setup.peer);
  }

  /** What a gateway says of a name. Of what nobody asked it, nothing is kept. */
  handleStatus(key: SetupKey, status: DomainStatus, now: Instant): void {
    this.#now = now;
    const setup = this.#find(key);
    if (setup === undefined) return;
    // Where the first message of a round is yet to be sent, this is about what was before.
    if (isWaiting(setup.state) && setup.state.messages === 0) return;
    if (status === 'active') this.#confirm(setup);
    else this.#fail(setup, status);
  }

  /**
   * The gateway does not know the proxies, or refuses them, as it says by ICMP. It is asked again, unless it
   * was just now. Returns whether the next packet may pass: then who sent this one need not hear of it.
   */
  handleUnreachable(key: SetupKey, proxies: readonly IpAddress[], now: Instant): boolean {
    this.#now = now;
    const setup = this.#use(key, proxies);
    if (isWaiting(setup.state)) return true;
    if (isTooEarly(setup, now)) return false;
    const wasRefused = setup.state.type === 'failed' && setup.state.why !== 'no-answer';
    this.#beginRound(setup);
    this.#sendWaiting(setup.peer);
    return !wasRefused;
  }

  /**
   * The gateway may have forgotten everything: it went, or has begun anew. All its set-ups are repeated, but
   * for those that have failed before they were ever confirmed.
   */
  handlePeerLost(peer: number, now: Instant): void {
    this.#now = now;
    const known = this.#peers.get(peer);
    if (known === undefined) return;
    for (const setup of known.setups.values()) {
      if (isWaiting(setup.state)) setup.state = { ...setup.state, messages: 0 };
      else if (!isHoldingAnew(setup.state)) this.#beginRound(setup);
    }
    this.#sendWaiting(known);
  }

  removePeer(peer: number): void {
    for (const setup of this.#peers.get(peer)?.setups.values() ?? []) this.#forget(setup);
  }

  /** Forgets the set-ups that the predicate names, with the packets they hold. */
  removeWhere(predicate: (key: SetupKey) => boolean): void {
    for (const { setups } of this.#peers.values()) {
      for (const setup of setups.values()) if (predicate(setup.key)) this.#forget(setup);
    }
  }

  handleTimeout(now: Instant): void {
    this.#now = now;
    const peers = new Set<Peer>();
    for (const [setup] of this.#resting.handleTimeout(now)) {
      if (isWaiting(setup.state) && setup.state.messages >= MOST_MESSAGES) {
        this.#fail(setup, 'no-answer');
      } else {
        this.#enqueue(setup);
        peers.add(setup.peer);
      }
    }
    for (const [peer] of this.#paced.handleTimeout(now)) peers.add(peer);
    for (const peer of peers) this.#sendWaiting(peer);
  }

  pollEvent(): ResourceSetupsEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    if (this.#events.length > 0) return { at: this.#now, reason: 'queued' };
    return sooner(this.#resting.pollTimeout(), this.#paced.pollTimeout());
  }

  /** In no order that means anything. */
  statuses(): readonly SetupStatus[] {
    const statuses: SetupStatus[] = [];
    for (const { setups } of this.#peers.values()) {
      for (const { key, state } of setups.values()) {
        const why = state.type === 'failed' ? { why: state.why } : {};
        statuses.push({ ...key, state: state.type, ...why });
      }
    }
    return statuses;
  }

  #find({ peer, resource, domain }: SetupKey): Setup | undefined {
    return this.#peers.get(peer)?.setups.get(nameKey(resource, domain));
  }

  #use(key: SetupKey, proxies: readonly IpAddress[]): Setup {
    const setup = this.#find(key) ?? this.#add(key, proxies);
    setup.proxies = proxies;
    this.#used.touch(setup);
    return setup;
  }

  #add({ peer: index, resource, domain }: SetupKey, proxies: readonly IpAddress[]): Setup {
    if (this.#used.size === MOST_SETUPS && this.#used.oldest) this.#forget(this.#used.oldest);
    const peer = this.#peers.get(index) ?? {
      setups: new Map<string, Setup>(),
      queue: new PacedQueue<Setup>(SETUP_MESSAGES_PER_SECOND, 1000 / SETUP_MESSAGES_PER_SECOND),
    };
    this.#peers.set(index, peer);
    const setup: Setup = {
      key: { peer: index, resource, domain },
      peer,
      proxies,
      state: { type: 'failed', why: 'no-answer', wasConfirmed: false },
      sentAt: undefined,
      isFailureTold: false,
      older: undefined,
      newer: undefined,
    };
    peer.setups.set(nameKey(resource, domain), setup);
    this.#used.add(setup);
    return setup;
  }

  #forget(setup: Setup): void {
    const { peer, resource, domain } = setup.key;
    this.#endRound(setup);
    this.drops['setup-forgotten'] += this.#takeHeld(setup.state).length;
    this.#used.delete(setup);
    setup.peer.setups.delete(nameKey(resource, domain));
    if (setup.peer.setups.size === 0) this.#peers.delete(peer);
  }

  /** Asks for a set-up that does not wait. The message is sent when it has its turn. */
  #beginRound(setup: Setup): void {
    setup.state = isHoldingAnew(setup.state)
      ? { type: 'pending', messages: 0, held: new HeldPackets(MOST_HELD) }
      : { type: 'recreating', messages: 0 };
    if (setup.sentAt !== undefined && isTooEarly(setup, this.#now)) this.#rest(setup, setup.sentAt);
    else this.#enqueue(setup);
  }

  #endRound(setup: Setup): void {
    const { queue } = setup.peer;
    this.#resting.delete(setup);
    queue.delete(setup);
    if (queue.readyAt() === undefined) this.#paced.delete(setup.peer);
  }

  #rest(setup: Setup, sentAt: Instant): void {
    this.#resting.set(setup, undefined, sentAt, RESEND_INTERVAL);
  }

  #enqueue(setup: Setup): void {
    const { state } = setup;
    setup.peer.queue.add(setup, state.type === 'pending' && state.held.packets.length > 0);
  }

  #sendWaiting(peer: Peer): void {
    for (let setup = peer.queue.take(this.#now); setup; setup = peer.queue.take(this.#now)) {
      this.#send(setup);
    }
    const at = peer.queue.readyAt();
    if (at === undefined) this.#paced.delete(peer);
    else this.#paced.set(peer, undefined, at, 0);
  }

  #send(setup: Setup): void {
    const { key, state, proxies } = setup;
    if (!isWaiting(state)) return;
    setup.state = { ...state, messages: state.messages + 1 };
    setup.sentAt = this.#now;
    this.#rest(setup, this.#now);
    const { peer, resource, domain } = key;
    const message = { type: 'assigned-ips', resource, domain, proxyIps: proxies } as const;
    this.#events.push({ type: 'send', peer, message });
  }

  #confirm(setup: Setup): void {
    this.#answer(setup, { type: 'confirmed' });
    setup.isFailureTold = false;
  }

  #fail(setup: Setup, why: SetupFailure): void {
    const { state, key } = setup;
    const wasConfirmed = state.type === 'failed' ? state.wasConfirmed : state.type !== 'pending';
    this.#answer(setup, { type: 'failed', why, wasConfirmed });
    if (setup.isFailureTold) return;
    setup.isFailureTold = true;
    this.#events.push({ type: 'failed', key, why });
  }

  /** Ends the round; what was held goes the way that packets go from now on. */
  #answer(setup: Setup, state: State): void {
    const wasHeld = isHolding(setup.state);
    const packets = this.#takeHeld(setup.state);
    this.#endRound(setup);
    setup.state = state;
    if (isHolding(state)) this.drops['setup-no-answer'] += packets.length;
    else if (wasHeld) this.#events.push({ type: 'released', key: setup.key, packets });
  }

  #keep(packet: Uint8Array, held: HeldPackets): void {
    const isFull = this.#heldInAll === MOST_HELD_IN_ALL;
    const why = isFull ? 'queue-full' : held.add(packet);
    if (why === undefined) this.#heldInAll++;
    else this.drops[`setup-${why}`]++;
  }

  #takeHeld(state: State): readonly Uint8Array[] {
    if (state.type !== 'pending') return [];
    this.#heldInAll -= state.held.packets.length;
    return state.held.packets;
  }
}

/** How many messages a round has, the first of them at its beginning. */
const MOST_MESSAGES = SETUP_PATIENCE / RESEND_INTERVAL;

/** A timeout ends and repeats all set-ups at most. */
const MOST_EVENTS = 2 * MOST_SETUPS;

interface Peer {
  readonly setups: Map<string, Setup>;
  readonly queue: PacedQueue<Setup>;
}

interface Setup extends Used<Setup> {
  readonly key: SetupKey;
  readonly peer: Peer;
  proxies: readonly IpAddress[];
  state: State;
  sentAt: Instant | undefined;
  isFailureTold: boolean;
}

/** Waits for an answer; its message was sent so many times in this round. */
type Waiting =
  /** Never confirmed. */
  | { readonly type: 'pending'; readonly messages: number; readonly held: HeldPackets }
  /** Confirmed once. */
  | { readonly type: 'recreating'; readonly messages: number };

type State =
  | Waiting
  | { readonly type: 'confirmed' }
  | { readonly type: 'failed'; readonly why: SetupFailure; readonly wasConfirmed: boolean };

function isWaiting(state: State): state is Waiting {
  return state.type === 'pending' || state.type === 'recreating';
}

function isHolding(state: State): boolean {
  switch (state.type) {
    case 'pending':
      return true;
    case 'confirmed':
    case 'recreating':
      return false;
    case 'failed':
      return state.why === 'no-answer' && !state.wasConfirmed;
    default:
      return unreachable(state);
  }
}

/** Whether packets are to be held while it is asked for anew: it was never confirmed. */
function isHoldingAnew(state: State): boolean {
  return state.type === 'failed' && !state.wasConfirmed;
}

function isTooEarly({ sentAt }: Setup, now: Instant): boolean {
  return sentAt !== undefined && elapsed(sentAt, now) < RESEND_INTERVAL;
}

/** The resource is a `Name`, in which no space stands. */
function nameKey(resource: string, domain: string): string {
  return `${resource} ${domain}`;
}
