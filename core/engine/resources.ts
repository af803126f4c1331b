import type { Configuration } from '../config/configuration.ts';
import type { DomainName } from '../dns/name.ts';
import { flowOfPacket, type Flow } from '../fastpath/flow.ts';
import type { FlowFacts, LocalPacket } from '../fastpath/packet-path.ts';
import { isIcmpErrorFlow } from '../nat/icmp-translation.ts';
import { masqueradeRuleset } from '../nat/masquerade.ts';
import { isFullLength } from '../net/ip-prefix.ts';
import { IpPacket } from '../packet/ip-packet.ts';
import { readIcmpError, type IcmpError } from '../packet/icmp.ts';
import type { GoodbyeReason, PathKind, PeeringMessage } from '../peering/message.ts';
import type { Peering } from '../peering/peering.ts';
import type { WantedRuleset } from '../netlink/nftables/wanted-ruleset.ts';
import type { RulesetFailure } from '../plugin/ruleset.ts';
import { sooner, type Deadline } from '../sansio/agent.ts';
import type { Instant } from '../sansio/instant.ts';
import type { Random } from '../sansio/random.ts';
import { ClientSide } from './client-side.ts';
import type { Command } from './command.ts';
import type { Event } from './event.ts';
import { FlowPolicy, type RoutedPeer } from './flow-policy.ts';
import { GatewaySide, type GatewaySideEvent, type KnownPeer } from './gateway-side.ts';
import { keepFlows, NO_FLOWS, type KeptFlows } from './kept-sessions.ts';
import { Names, type NamesEvent } from './names.ts';
import type { Input } from './input.ts';
import type { Peer, PeerTable } from './peer-table.ts';
import { Sessions } from './sessions.ts';

/** What the resources need of the data plane. */
export interface PacketCarrier {
  isReachable(peer: number): boolean;
  /** Whether packets reach the peer at present, as far as is known. */
  isUp(peer: number): boolean;
  /** Seeks the way to the peer, as if a packet waited for it. */
  wake(peer: number, now: Instant): void;
  invalidateFlows(): void;
  forgetSession(session: number): void;
  /** Takes a packet of the LAN once more. */
  resubmit(packet: Uint8Array, now: Instant): void;
  sendPacket(peer: number, packet: Uint8Array, now: Instant): void;
  /** Hands a packet to the machine and its LAN. */
  writePacket(packet: Uint8Array): void;
}

/** What becomes of the commands for resources. */
export type ResourcesInput = Extract<Input, { readonly type: (typeof INPUTS)[number] }>;

export function isResourcesInput(input: Input): input is ResourcesInput {
  const types: readonly Input['type'][] = INPUTS;
  return types.includes(input.type);
}

const INPUTS = [
  'dns-listening',
  'dns-intercepted',
  'system-names',
  'ruleset-changed',
  'ruleset-applied',
] as const;

/** What the rest of the engine is to do. */
export type ResourcesEvent =
  | { readonly type: 'send-message'; readonly peer: number; readonly message: PeeringMessage }
  /** The peer may use nothing of ours any more. */
  | { readonly type: 'dismiss'; readonly peer: string }
  | { readonly type: 'event'; readonly event: Event };

/**
 * What is reached by name and by authorization, on the side that uses it and on the one that serves it: joins
 * names, flows and the messages between daemons.
 */
export class Resources {
  readonly policy: FlowPolicy;
  readonly sessions: Sessions;
  readonly names: Names;
  readonly client: ClientSide;
  readonly gateway: GatewaySide;
  #carrier: PacketCarrier = NOWHERE;
  readonly #events: ResourcesEvent[] = [];
  readonly #commands: Command[] = [];
  /** By index. */
  readonly #peers = new Map<number, KnownPeer>();
  /** What peers said that are gone and not back, by their indices. */
  readonly #left = new Map<number, GoodbyeReason>();
  /** Those of them to which somebody wants to send. */
  readonly #missed = new Set<number>();
  /** Until the first configuration says which peers there are. */
  #kept: KeptFlows;
  /** What the calendar shows at instant 0. */
  #epoch: number;
  #ruleset: WantedRuleset | undefined;
  #hasRulesetFailed = false;

  constructor(
    options: {
      readonly random: Random;
      readonly unixMs: number;
      readonly peering: Peering;
      readonly keptProxies: Iterable<readonly [DomainName, number]>;
      /** What was open when we restarted. */
      readonly keptFlows: KeptFlows;
      pathOf(peer: number): PathKind | undefined;
    },
    now: Instant,
  ) {
    this.#kept = options.keptFlows;
    this.#epoch = options.unixMs - now;
    this.sessions = new Sessions(
      { ...options, onEnd: (session) => this.#carrier.forgetSession(session) },
      now,
    );
    const { sessions } = this;
    this.gateway = new GatewaySide({ ...options, sessions }, now);
    const { gateway } = this;
    this.names = new Names(
      { ...options, gateway, kept: options.keptProxies, namesInUse: () => sessions.domains() },
      now,
    );
    const { pool } = this.names;
    this.client = new ClientSide({
      sessions,
      pool,
      isUp: (peer) => this.#carrier.isUp(peer),
    });
    this.policy = new FlowPolicy({
      ...options,
      sessions,
      gateway,
      client: this.client,
      isReachable: (peer) => this.#isReachable(peer),
    });
  }

  /** The data plane, which is made with our policy. To be called once, before anything runs. */
  attach(carrier: PacketCarrier): void {
    this.#carrier = carrier;
  }

  configure(configuration: Configuration, peers: Iterable<Peer>, now: Instant): void {
    const routed = Array.from(peers, routedOf);
    const known = new Map<string, KnownPeer>(routed.map((peer) => [peer.id, peer]));
    for (const { index, id } of Array.from(this.#peers.values())) {
      // Another peer may have its index by now.
      if (known.get(id)?.index !== index) this.#remove(index, now);
    }
    for (const peer of routed) this.#peers.set(peer.index, peer);
    this.policy.setPeers(routed);
    this.policy.setPrefixMaps(configuration.nat.prefixMaps);
    this.client.configure(configuration, known, now);
    this.gateway.configure(configuration, known, now);
    this.names.configure(configuration, this.client.used, known);
    this.#restore(known, now);
    this.#carrier.invalidateFlows();
    this.#masquerade(configuration, routed);
  }

  handleInput(input: ResourcesInput, now: Instant): void {
    switch (input.type) {
      case 'dns-listening':
        return this.names.handleListening(input.failures, now);
      case 'dns-intercepted':
        return this.names.handleIntercepted(input.failure, now);
      case 'system-names':
        return this.names.handleSystemNames(input.names);
      case 'ruleset-changed':
        return this.#assertRuleset();
      case 'ruleset-applied':
        return this.#handleRuleset(input.failures);
    }
  }

  /** A message of the peer that is about names. */
  handleMessage(index: number, message: PeeringMessage, now: Instant): void {
    const peer = this.#peers.get(index);
    if (peer === undefined) return;
    if (message.type === 'assigned-ips') this.gateway.handleAssignedIps(peer, message);
    else if (message.type === 'domain-status') this.client.handleStatus(peer, message, now);
  }

  /** What is open with the peer ends, unless it is back in a moment; what it may use stays its own. */
  handlePeerLeft(index: number, reason: GoodbyeReason, now: Instant): void {
    if (reason !== 'restarting') this.sessions.endAllOf(index, now);
    this.#left.set(index, reason);
    this.#carrier.invalidateFlows();
  }

  /** A peer that is back may have forgotten which proxies stand for what. */
  handlePeerConnected(id: string, peers: Pick<PeerTable, 'byId'>, now: Instant): void {
    const index = peers.byId(id)?.index;
    if (index !== undefined && this.#left.delete(index)) {
      this.client.handlePeerLost(index, now);
      this.#carrier.invalidateFlows();
    }
    this.handlePeerReach();
  }

  /** What became of the way to a peer. */
  handlePathEvent(event: Event, peers: Pick<PeerTable, 'byId'>, now: Instant): void {
    const { type } = event;
    if (type === 'path-lost' || type === 'connection-failed') return this.handlePeerReach();
    if (type !== 'peer-left') return;
    const index = peers.byId(event.peer)?.index;
    if (index !== undefined) this.handlePeerLeft(index, event.reason, now);
  }

  /** The peer can be reached, or cannot any more: flows that have a choice of gateways choose again. */
  handlePeerReach(): void {
    if (this.client.used.some(({ gateways }) => gateways.length > 1)) {
      this.#carrier.invalidateFlows();
    }
  }

  /** Whether the packet filter is not as it should be. */
  get hasRulesetFailed(): boolean {
    return this.#hasRulesetFailed;
  }

  /** Returns the name of a peer. */
  peerId(index: number): string | undefined {
    return this.#peers.get(index)?.id;
  }

  handleFacts(facts: FlowFacts, now: Instant): void {
    this.sessions.handleFacts(facts, now);
  }

  /** A packet about which no verdict for its flow says enough: an ICMP error, or one that is to wait. */
  handleLocal({ peer, packet }: LocalPacket, now: Instant): void {
    if (peer !== undefined) return this.#handleErrorOfPeer(peer, packet, now);
    // To hold an error would be of no use: what is released is asked about again, and comes back here.
    const flow = flowOfPacket(packet);
    if (flow === undefined) return;
    if (isIcmpErrorFlow(flow)) return this.#handleErrorOfSite(packet, flow, now);
    if (this.client.hold(packet, flow, now)) return;
    this.#carrier.invalidateFlows();
    this.#carrier.resubmit(packet, now);
  }

  handleWallClock(unixMs: number, now: Instant): void {
    this.#epoch = unixMs - now;
    this.sessions.handleWallClock(unixMs, now);
    this.gateway.handleWallClock(unixMs, now);
  }

  handleTimeout(now: Instant): void {
    this.sessions.handleTimeout(now);
    this.client.handleTimeout(now);
    this.gateway.handleTimeout(now);
    this.names.handleTimeout(now);
  }

  stop(reason: GoodbyeReason, now: Instant): void {
    this.names.stop();
    if (reason !== 'restarting') return;
    const flows = { sessions: this.sessions.kept(), assignments: [...this.gateway.assignments()] };
    if (flows.sessions.length > 0) this.#commands.push(keepFlows(flows, this.#epoch + now));
  }

  drops(): Readonly<Record<string, number>> {
    return this.client.drops();
  }

  /** Carries what is known from one to the other; returns whether there was anything. */
  settle(now: Instant): boolean {
    let worked = this.names.settle(now);
    for (const peer of this.#missed) this.#carrier.wake(peer, now);
    this.#missed.clear();
    for (let event = this.names.pollEvent(); event; event = this.names.pollEvent()) {
      this.#handleNames(event, now);
      worked = true;
    }
    for (let event = this.gateway.pollEvent(); event; event = this.gateway.pollEvent()) {
      this.#handleGateway(event, now);
      worked = true;
    }
    for (let event = this.client.pollEvent(); event; event = this.client.pollEvent()) {
      if (event.type === 'send') this.#events.push({ ...event, type: 'send-message' });
      else if (event.type === 'released') this.#release(event.packets, now);
      else this.#tellRefused(event);
      worked = true;
    }
    for (let sent = this.names.pollCommand(); sent; sent = this.names.pollCommand()) {
      this.#commands.push(sent);
      worked = true;
    }
    return worked;
  }

  pollEvent(): ResourcesEvent | undefined {
    return this.#events.shift();
  }

  pollCommand(): Command | undefined {
    return this.#commands.shift();
  }

  pollTimeout(): Deadline | undefined {
    const sides = sooner(this.client.pollTimeout(), this.gateway.pollTimeout());
    return sooner(sooner(this.sessions.pollTimeout(), this.names.pollTimeout()), sides);
  }

  /** Takes up what was open when we restarted, with the peers that are still there. */
  #restore(peers: ReadonlyMap<string, KnownPeer>, now: Instant): void {
    const { sessions, assignments } = this.#kept;
    this.#kept = NO_FLOWS;
    for (const assignment of assignments) {
      if (peers.has(assignment.peer)) this.gateway.restore(assignment);
    }
    for (const session of sessions) {
      const peer = peers.get(session.peerId);
      if (peer !== undefined) this.sessions.restore(session, peer.index, now);
    }
  }

  /** Who sends to a peer that has left is told at once, and the peer is sought: it may be back. */
  #isReachable(peer: number): boolean {
    const reason = this.#left.get(peer);
    if (reason === undefined || reason === 'restarting') return this.#carrier.isReachable(peer);
    this.#missed.add(peer);
    return false;
  }

  #remove(index: number, now: Instant): void {
    this.#peers.delete(index);
    this.#left.delete(index);
    this.sessions.endAllOf(index, now);
    this.client.removePeer(index);
  }

  #release(packets: readonly Uint8Array[], now: Instant): void {
    this.#carrier.invalidateFlows();
    for (const packet of packets) this.#carrier.resubmit(packet, now);
  }

  #handleNames(event: NamesEvent, now: Instant): void {
    switch (event.type) {
      case 'resource-lookup':
        return this.client.handleLookup(event.name, event.resources, now);
      case 'resolved':
        return this.gateway.handleResolved(event, now);
      case 'event':
        this.#events.push(event);
        return;
    }
  }

  #handleGateway(event: GatewaySideEvent, now: Instant): void {
    switch (event.type) {
      case 'send':
        this.#events.push({ ...event, type: 'send-message' });
        return;
      case 'look-up':
        return this.names.lookUp(event.name, now);
      case 'flows-changed':
        return this.#carrier.invalidateFlows();
      case 'last-authorization-ended':
        this.#events.push({ type: 'dismiss', peer: event.peer });
        return;
      case 'assignment-refused':
      case 'authorization-ended':
      case 'address-changed':
        this.#events.push({ type: 'event', event });
        return;
    }
  }

  #tellRefused({ key, why }: { key: { peer: number; resource: string }; why: string }): void {
    const peer = this.#peers.get(key.peer)?.id;
    if (peer === undefined) return;
    const { resource } = key;
    this.#events.push({ type: 'event', event: { type: 'resource-failed', peer, resource, why } });
  }

  /** An error about a packet of ours: it goes to the host that sent that, under the address it knows. */
  #handleErrorOfPeer(index: number, packet: Uint8Array, now: Instant): void {
    const translated = this.sessions.translateError(packet);
    if (translated !== undefined) {
      const { tag } = translated;
      if (tag.role !== 'client' || tag.peer !== index) return;
      const refusal = refusalOf(packet);
      const isAskedAgain = refusal !== undefined && this.client.handleUnreachable(tag, now);
      // A proxy that the gateway has forgotten will do in a moment; what it forbids is to be told at once.
      const isHealed = isAskedAgain && refusal === 'host-unreachable';
      if (!isHealed) this.#carrier.writePacket(translated.packet);
      return;
    }
    const flow = flowOfPacket(packet);
    if (flow === undefined || !this.policy.isSourceOf(index, flow)) return;
    // What serves resources takes no errors outward: nothing in the site may depend on them.
    if (this.gateway.isOn && !this.policy.isOwn(flow.destination)) return;
    const mapped = this.policy.prefixNat.inboundError(packet);
    this.#carrier.writePacket(mapped.ok ? mapped.value : packet);
  }

  /** An error about a packet of a peer: it goes to the peer, under the address it knows. */
  #handleErrorOfSite(packet: Uint8Array, flow: Flow, now: Instant): void {
    const translated = this.sessions.translateError(packet);
    if (translated !== undefined) {
      const { tag } = translated;
      if (tag.role === 'gateway') this.#carrier.sendPacket(tag.peer, translated.packet, now);
      return;
    }
    const peer = this.policy.peerBehind(flow);
    // About what a peer sent to ourselves: it need not wait for a service that does not run.
    const isToBeTold = !this.gateway.isOn || this.policy.isOwn(flow.source);
    if (peer === undefined || !isToBeTold) return;
    const mapped = this.policy.prefixNat.outboundError(packet, flow.source);
    this.#carrier.sendPacket(peer, mapped.ok ? mapped.value : packet, now);
  }

  /** Hosts of the site see this machine in place of peers, whose addresses they know no way to. */
  #masquerade({ interface: own, nat }: Configuration, peers: readonly RoutedPeer[]): void {
    const wanted = masqueradeRuleset({
      device: own.name,
      isOn: nat.masquerade && this.gateway.isOn,
      sources: peers.flatMap(({ allowedIps }) => allowedIps.filter(isFullLength)),
    });
    const isKnown = this.#ruleset !== undefined && isSame(this.#ruleset, wanted);
    if (isKnown) return;
    this.#ruleset = wanted;
    this.#assertRuleset();
  }

  #assertRuleset(): void {
    if (this.#ruleset === undefined) return;
    this.#commands.push({ type: 'apply-ruleset', wanted: this.#ruleset });
  }

  #handleRuleset(failures: readonly RulesetFailure[]): void {
    const hasFailed = failures.length > 0;
    const isNews = hasFailed && !this.#hasRulesetFailed;
    this.#hasRulesetFailed = hasFailed;
    if (!isNews) return;
    const told = failures.map(({ object, message }) => ({ path: object, why: message }));
    this.#events.push({ type: 'event', event: { type: 'ruleset-failed', failures: told } });
  }
}

const NOWHERE: PacketCarrier = {
  isReachable: () => false,
  wake: () => {},
  isUp: () => false,
  invalidateFlows: () => {},
  forgetSession: () => {},
  resubmit: () => {},
  sendPacket: () => {},
  writePacket: () => {},
};

function isSame(a: WantedRuleset, b: WantedRuleset): boolean {
  return canonical(a) === canonical(b);
}

/** Bytes of elements would be objects with a member for each. */
function canonical(ruleset: WantedRuleset): string {
  return JSON.stringify(ruleset, (_, value: unknown) => {
    if (value instanceof Uint8Array) return Array.from(value);
    return typeof value === 'bigint' ? String(value) : value;
  });
}

function routedOf({ index, configuration: { id, allowedIps } }: Peer): RoutedPeer {
  const addresses = allowedIps.filter(isFullLength).map(({ address }) => address);
  return { index, id, addresses, allowedIps };
}

/** Returns in what way the far side says that it does not take what was sent there. */
function refusalOf(bytes: Uint8Array): IcmpError['type'] | undefined {
  const packet = new IpPacket();
  if (packet.read(bytes, 0, bytes.length) !== undefined) return undefined;
  const type = readIcmpError(packet)?.error.type;
  return type === 'host-unreachable' || type === 'administratively-prohibited' ? type : undefined;
}
