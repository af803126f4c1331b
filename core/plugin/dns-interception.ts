import type { DomainName } from '../dns/name.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import { capability, type Capability } from './capability.ts';

/** How queries of the LAN get to our listener. */
export type WantedInterception =
  | { readonly type: 'off' }
  /** The resolver of the router asks us for names below the zones, and nothing else. */
  | {
      readonly type: 'dnsmasq';
      readonly zones: readonly DomainName[];
      readonly server: SocketAddress;
    }
  /** What hosts behind the interfaces send to port 53 of anybody comes to our port. */
  | { readonly type: 'redirect'; readonly interfaces: readonly string[]; readonly port: number };

export interface InterceptionFailure {
  readonly why:
    | 'not-permitted'
    /** The listener did not answer when it was tried, nowhere. */
    | 'no-answer'
    | 'no-dnsmasq'
    | 'refused';
  /** What exactly was met, for people. */
  readonly detail: string;
}

/**
 * Ordinary names are answered whatever becomes of us: what is changed vanishes with the process, or sends
 * us only what nobody else can answer.
 */
export interface DnsInterception {
  /**
   * Makes it so, after the listener has answered; idempotent, the last call deciding. Hosts behind
   * interfaces at which it answers over one family alone are redirected over that: no failure as long as
   * anything is redirected. Resolves to what stood in the way: then nothing is redirected (any more), and
   * dnsmasq knows what it knew before, or nothing of us.
   */
  apply(wanted: WantedInterception): Promise<InterceptionFailure | undefined>;
}

export const dnsInterception: Capability<DnsInterception> = capability('dns-interception');
