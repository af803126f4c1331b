import type { DnsClient, DnsTransmit } from '../dns/forwarder.ts';
import type { WantedRuleset } from '../netlink/nftables/wanted-ruleset.ts';
import type { WantedInterception } from '../plugin/dns-interception.ts';
import type { WantedDnsListener } from '../plugin/dns-listener.ts';
import type { Publication } from '../plugin/control-channel.ts';
import type { DialTarget, StreamId } from '../plugin/streams.ts';
import type { WantedLink } from '../plugin/links.ts';

/**
 * What the engine wants done in the world. The driver carries each out through a plugin and feeds the
 * result back as an input, at once or later.
 */
export type Command =
  /** → `device-opened` */
  | { readonly type: 'open-device'; readonly name: string; readonly mtu: number }
  /** Bind the UDP port, 0 for any. → `listening` */
  | { readonly type: 'listen'; readonly port: number; readonly mark: number | undefined }
  /** Make the kernel's link, addresses and routes so. → `link-applied` */
  | { readonly type: 'apply-link'; readonly link: WantedLink }
  /** Look up the name of a peer's endpoint. → `resolved` for the same peer and host */
  | { readonly type: 'resolve'; readonly peer: string; readonly host: string }
  /** Read the addresses of this machine, but for those of the interface `except`. → `local-addresses` */
  | { readonly type: 'read-addresses'; readonly except: string }
  /** Look up the name of a relay. → `relay-resolved` */
  | { readonly type: 'resolve-relay'; readonly relay: string; readonly host: string }
  /** What becomes of streams comes through `Engine.handleStream`. */
  | { readonly type: 'dial'; readonly stream: StreamId; readonly target: DialTarget }
  | { readonly type: 'hang-up'; readonly stream: StreamId }
  /** Accept streams on the TCP port; 0 accepts none. → `streams-listening` */
  | { readonly type: 'listen-streams'; readonly port: number }
  /** The network changed: find out soon whether the broker is still there. */
  | { readonly type: 'check-broker' }
  /** Take queries there. → `dns-listening` */
  | { readonly type: 'listen-dns'; readonly wanted: WantedDnsListener }
  /** Have queries of the LAN come to us. → `dns-intercepted` */
  | { readonly type: 'intercept-dns'; readonly wanted: WantedInterception }
  /** Read the resolvers and hosts files of the system, now and when they change. → `system-names` */
  | { readonly type: 'read-names' }
  /** What servers answer comes through `Engine.handleDnsAnswer`. */
  | { readonly type: 'ask-dns'; readonly transmit: DnsTransmit }
  | { readonly type: 'answer-dns'; readonly client: DnsClient; readonly bytes: Uint8Array }
  /** Make our tables of the packet filter so. → `ruleset-applied` */
  | { readonly type: 'apply-ruleset'; readonly wanted: WantedRuleset }
  | { readonly type: 'publish'; readonly publication: Publication }
  /** Keep a document across restarts. → `stored` */
  | { readonly type: 'store'; readonly name: string; readonly bytes: Uint8Array };
