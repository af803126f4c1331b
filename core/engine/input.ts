import type { Configuration } from '../config/configuration.ts';
import type { IpAddress } from '../net/ip-address.ts';
import type { ControlEvent } from '../plugin/control-channel.ts';
import type { InterceptionFailure } from '../plugin/dns-interception.ts';
import type { DnsListenFailure } from '../plugin/dns-listener.ts';
import type { Listening, ListenFailure } from '../plugin/datagrams.ts';
import type { LinkFailure } from '../plugin/links.ts';
import type { DeviceFailure, DeviceOffloads } from '../plugin/packet-device.ts';
import type { RulesetFailure } from '../plugin/ruleset.ts';
import type { SystemNameConfiguration } from '../plugin/system-names.ts';
import type { Outcome } from '../sansio/outcome.ts';
import type { UapiSet } from '../wireguard/uapi.ts';

/**
 * Everything that can happen to the engine. Packets come in beside these, in batches: see
 * `Engine.handlePackets` and `Engine.handleDatagrams`.
 */
export type Input =
  /** A configuration from the local file, already parsed. */
  | { readonly type: 'configuration'; readonly configuration: Configuration }
  /** The local file does not parse; what runs stays. */
  | { readonly type: 'configuration-refused'; readonly why: string }
  /** The calendar: at start, hourly and after a step. */
  | { readonly type: 'wall-clock'; readonly unixMs: number }
  | { readonly type: 'control'; readonly event: ControlEvent }
  /** `wg set` and its like. */
  | { readonly type: 'uapi-set'; readonly request: UapiSet }
  /** Another program changed links, addresses or routes. */
  | { readonly type: 'links-changed' }
  /** Another program changed tables of the packet filter. */
  | { readonly type: 'ruleset-changed' }
  /** The daemon shall go once its peers have done with it, or not after all. */
  | { readonly type: 'drain' }
  | { readonly type: 'cancel-drain' }
  /** The daemon is asked to end; `reason` is what peers are told. */
  | { readonly type: 'stop'; readonly reason: 'leaving' | 'restarting' }
  | CommandResult;

/** What became of a command. */
export type CommandResult =
  | {
      readonly type: 'device-opened';
      readonly outcome: Outcome<
        { readonly name: string; readonly offloads: DeviceOffloads },
        DeviceFailure
      >;
    }
  | { readonly type: 'listening'; readonly outcome: Outcome<Listening, ListenFailure> }
  | {
      readonly type: 'link-applied';
      /** How much was not as wanted; 0 where something failed. */
      readonly changes: number;
      readonly failures: readonly LinkFailure[];
    }
  /** The addresses of this machine outside the tunnel. */
  | { readonly type: 'local-addresses'; readonly addresses: readonly IpAddress[] }
  | {
      readonly type: 'relay-resolved';
      readonly relay: string;
      readonly outcome: Outcome<readonly IpAddress[], 'not-resolved'>;
    }
  | { readonly type: 'dns-listening'; readonly failures: readonly DnsListenFailure[] }
  | { readonly type: 'dns-intercepted'; readonly failure: InterceptionFailure | undefined }
  | { readonly type: 'system-names'; readonly names: SystemNameConfiguration }
  | { readonly type: 'ruleset-applied'; readonly failures: readonly RulesetFailure[] }
  | { readonly type: 'streams-listening'; readonly outcome: Outcome<void, ListenFailure> }
  | { readonly type: 'stored'; readonly outcome: Outcome<void, 'not-writable'> }
  | {
      readonly type: 'resolved';
      readonly peer: string;
      readonly host: string;
      readonly outcome: Outcome<readonly IpAddress[], 'not-resolved'>;
    };
