import type { IpAddress } from '../net/ip-address.ts';
import type { Deadline } from '../sansio/agent.ts';
import type { Instant, Millis } from '../sansio/instant.ts';
import { BugError } from '../sansio/outcome.ts';
import type { DomainStatus, PeeringMessage } from './message.ts';

/** Packets that one set-up holds; the newest is dropped. */
export const MOST_HELD = 32;
/** Between two messages of one set-up. */
export const RESEND_INTERVAL: Millis = 2_000;
/** Without an answer for this long a set-up has failed; the next packet tries again. */
export const SETUP_PATIENCE: Millis = 10_000;
/** Names in use; the one that was used longest ago gives way. */
export const MOST_SETUPS = 4096;

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
  /** Packets of the set-up pass from now on, those held first; the gateway knows it, or refuses them itself. */
  | { readonly type: 'released'; readonly key: SetupKey; readonly packets: readonly Uint8Array[] }
  /** Told once until it is confirmed again. */
  | { readonly type: 'failed'; readonly key: SetupKey; readonly why: SetupFailure };

/**
 * The client's side of resource NAT: asks gateways to translate the proxies of names, and knows whether they
 * do (DESIGN §7, `reference/firezone.md` §3.7). Packets of a new set-up are held until the gateway has
 * answered; once it was confirmed they pass, also while it is set up anew.
 */
export class ResourceSetups {
  /** A client asked for the name: the gateway is to resolve it (again). At most one message each 2 s. */
  request(key: SetupKey, proxies: readonly IpAddress[], now: Instant): void {
    throw new BugError(`not written ${key.domain} ${proxies.length} ${now}`);
  }

  /** Whether packets to the proxies are to be held. A set-up that is not known holds. */
  isHeld(key: SetupKey): boolean {
    throw new BugError(`not written ${key.domain}`);
  }

  /** A packet that is to be held; begins the set-up where there is none, repeats its message if it is time. */
  hold(key: SetupKey, proxies: readonly IpAddress[], packet: Uint8Array, now: Instant): void {
    throw new BugError(`not written ${key.domain} ${proxies.length} ${packet.length} ${now}`);
  }

  /** What a gateway says of a name. Of what nobody asked it, nothing is kept. */
  handleStatus(key: SetupKey, status: DomainStatus, now: Instant): void {
    throw new BugError(`not written ${key.domain} ${status} ${now}`);
  }

  /**
   * The gateway does not know the proxies, or refuses them, as it says by ICMP. Returns whether the set-up
   * is asked for again: then who sent the packet need not hear of it, as the next one may pass.
   */
  handleUnreachable(key: SetupKey, proxies: readonly IpAddress[], now: Instant): boolean {
    throw new BugError(`not written ${key.domain} ${proxies.length} ${now}`);
  }

  /** The gateway may have forgotten everything: it went, or has begun anew. All its set-ups are repeated. */
  handlePeerLost(peer: number, now: Instant): void {
    throw new BugError(`not written ${peer} ${now}`);
  }

  removePeer(peer: number): void {
    throw new BugError(`not written ${peer}`);
  }

  /** Forgets the set-ups that the predicate names, with the packets they hold. */
  removeWhere(predicate: (key: SetupKey) => boolean): void {
    throw new BugError(`not written ${predicate.length}`);
  }

  handleTimeout(now: Instant): void {
    throw new BugError(`not written ${now}`);
  }

  pollEvent(): ResourceSetupsEvent | undefined {
    throw new BugError('not written');
  }

  pollTimeout(): Deadline | undefined {
    throw new BugError('not written');
  }

  statuses(): readonly SetupStatus[] {
    throw new BugError('not written');
  }
}
