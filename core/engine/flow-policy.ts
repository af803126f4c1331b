import type { Flow, FlowVerdict, PacketPolicy } from '../fastpath/flow.ts';
import { isIcmpErrorFlow } from '../nat/icmp-translation.ts';
import { PrefixNat, type PrefixMap } from '../nat/prefix-nat.ts';
import { ipAddressFromBytes } from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import { guardInbound, guardOutbound } from '../peering/guard.ts';
import type { Peering } from '../peering/peering.ts';
import type { Instant } from '../sansio/instant.ts';
import { AllowedIps } from '../wireguard/allowed-ips.ts';
import type { ClientSide } from './client-side.ts';
import type { GatewaySide, KnownPeer } from './gateway-side.ts';
import type { Sessions } from './sessions.ts';

/** A peer with the networks behind it. */
export interface RoutedPeer extends KnownPeer {
  readonly allowedIps: readonly IpPrefix[];
}

/**
 * Decides about each flow once: which peer it goes to, whether it may, and how it is rewritten.
 *
 * Out of the TUN: answers to peers that use our resources; resources that peers serve, proxies of names first;
 * networks behind peers (cryptokey routing, whitepaper §2); the internet through a peer. Into the TUN: answers
 * to what went out; else a packet is a peer's only if its source is, and goes where the peer is authorized.
 */
export class FlowPolicy implements PacketPolicy {
  readonly #allowedIps = new AllowedIps();
  readonly #prefixNat = new PrefixNat();
  readonly #peering: Peering;
  readonly #sessions: Sessions;
  readonly #client: ClientSide;
  readonly #gateway: GatewaySide;
  readonly #isReachable: (peer: number) => boolean;
  #peers: ReadonlyMap<number, KnownPeer> = new Map();
  #hasMaps = false;

  constructor(options: {
    readonly peering: Peering;
    readonly sessions: Sessions;
    readonly client: ClientSide;
    readonly gateway: GatewaySide;
    /** Whether there is a way to the peer, or one is sought. */
    isReachable(peer: number): boolean;
  }) {
    this.#peering = options.peering;
    this.#sessions = options.sessions;
    this.#client = options.client;
    this.#gateway = options.gateway;
    this.#isReachable = (peer) => options.isReachable(peer);
  }

  /** Sets which networks lie behind which peers, as a whole; what was decided is to be forgotten. */
  setPeers(peers: Iterable<RoutedPeer>): void {
    this.#allowedIps.clear();
    const known = new Map<number, KnownPeer>();
    for (const peer of peers) {
      known.set(peer.index, peer);
      for (const prefix of peer.allowedIps) this.#allowedIps.insert(prefix, peer.index);
    }
    this.#peers = known;
  }

  setPrefixMaps(maps: readonly PrefixMap[]): void {
    this.#prefixNat.setMaps(maps);
    this.#hasMaps = maps.length > 0;
  }

  outbound(flow: Flow, now: Instant): FlowVerdict {
    if (this.#isToBeTranslated(flow)) return { type: 'local' };
    const answered = this.#sessions.findReply('gateway', flow);
    if (answered?.type === 'open') return this.#gateway.decideReply(answered, flow);
    // Networks with other addresses in the tunnel are translated without a session, too.
    if (answered !== undefined && this.#gateway.isProxy(answered.destination)) return EXPIRED;
    const verdict =
      this.#client.decideRequest(flow, now) ??
      this.#decideRouted(flow, now) ??
      this.#client.decideInternet(flow, now);
    // The kernel itself sends some, such as router solicitations, into every interface.
    if (verdict === undefined && isMulticast(flow)) return { type: 'drop', reason: 'multicast' };
    if (verdict === undefined) return { type: 'drop', reason: 'no-peer', icmp: 'host-unreachable' };
    if (verdict.type !== 'forward') return verdict;
    return guardOutbound(this.#peering, verdict.peer, flow) ?? this.#ifReachable(verdict);
  }

  inbound(peer: number, flow: Flow, now: Instant): FlowVerdict {
    if (this.#isToBeTranslated(flow)) return { type: 'local' };
    const isSourceOfPeer = this.isSourceOf(peer, flow);
    // First: a host of the LAN may have a session whose answers would look like it.
    const guarded = isSourceOfPeer ? guardInbound(this.#peering, flow) : undefined;
    if (guarded !== undefined) return guarded;
    const answered = this.#sessions.findReply('client', flow);
    if (answered?.type === 'open' && answered.tag.peer === peer) {
      return { type: 'forward', peer, rewrite: answered.rewrite };
    }
    const isToUs = this.isOwn(flow.destination);
    if (answered?.type === 'ended' && isToUs) return EXPIRED;
    if (!isSourceOfPeer) return { type: 'drop', reason: 'source-not-allowed' };
    // Which services of ours it reaches is for the firewall of this machine.
    if (isToUs) return { type: 'forward', peer };
    const rewrite = this.#prefixNat.inbound(flow);
    const known = this.#peers.get(peer);
    if (known !== undefined && this.#gateway.isOn) {
      return this.#gateway.decideRequest(known, flow, rewrite?.destination, now);
    }
    return { type: 'forward', peer, ...(rewrite && { rewrite }) };
  }

  /** Cryptokey routing: whether packets with this source are the peer's. */
  isSourceOf(peer: number, { source, family }: Flow): boolean {
    return this.#allowedIps.lookupBytes(source, 0, family) === peer;
  }

  /** Returns the peer behind which the destination lies. */
  peerBehind({ destination, family }: Flow): number | undefined {
    return this.#allowedIps.lookupBytes(destination, 0, family);
  }

  /** Whether it is an address of ours in the tunnel. */
  isOwn(address: Uint8Array): boolean {
    return this.#peering.isOwnAddress(ipAddressFromBytes(address));
  }

  get prefixNat(): PrefixNat {
    return this.#prefixNat;
  }

  /** Decides about a flow to a network behind a peer. */
  #decideRouted(flow: Flow, now: Instant): FlowVerdict | undefined {
    const peer = this.peerBehind(flow);
    if (peer === undefined) return undefined;
    const source = this.#prefixNat.outbound(flow)?.source;
    const known = this.#peers.get(peer);
    // Where peers reach only what they are authorized for, their answers must be told from requests. Not
    // at our own addresses, which all of it reaches: there, requests must not be taken for stragglers.
    if (known !== undefined && this.#gateway.isOn && !this.isOwn(flow.source)) {
      return this.#client.openPlain(flow, known, source ?? flow.source, now);
    }
    return { type: 'forward', peer, ...(source && { rewrite: { source } }) };
  }

  /** A peer that cannot be reached is refused at once, as by the Linux kernel: no attempt will begin. */
  #ifReachable(verdict: FlowVerdict & { readonly type: 'forward' }): FlowVerdict {
    return this.#isReachable(verdict.peer)
      ? verdict
      : { type: 'drop', reason: 'no-endpoint', icmp: 'host-unreachable' };
  }

  /** ICMP errors are about other packets, each about another. */
  #isToBeTranslated(flow: Flow): boolean {
    const translates = this.#hasMaps || this.#gateway.isOn || this.#client.used.length > 0;
    return translates && isIcmpErrorFlow(flow);
  }
}

/** A straggler: it must not be taken for traffic that needs no translation. */
const EXPIRED: FlowVerdict = { type: 'drop', reason: 'expired-nat-session' };

/** RFC 5771 §3: 224.0.0.0/4; RFC 4291 §2.7: ff00::/8. */
function isMulticast({ family, destination: [first = 0] }: Flow): boolean {
  return family === 4 ? first >> 4 === 0xe : first === 0xff;
}
