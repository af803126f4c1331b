import { Access } from '../../../core/access/access.ts';
import { Authorizations } from '../../../core/access/authorizations.ts';
import type { FastPathKernel } from '../../../core/fastpath/kernel.ts';
import type { Flow, FlowVerdict, PacketPolicy } from '../../../core/fastpath/packet-path.ts';
import { isIcmpErrorFlow, translateErrorOfSession } from '../../../core/nat/icmp-translation.ts';
import { ResourceNat, targetBytes } from '../../../core/nat/resource-nat.ts';
import { SessionTable } from '../../../core/nat/session-table.ts';
import { isPortless, replyTuple, requestTuple } from '../../../core/nat/tuple.ts';
import { ipAddressBytes, ipAddressFromBytes } from '../../../core/net/ip-address.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { Station } from '../fastpath/station.ts';
import { SeededRandom } from '../wireguard/network.ts';
import { addressBytes } from './icmp-packets.ts';

/**
 * A gateway as small as it can be: access, resource NAT and sessions around a packet path. Peers are told by
 * their indices, and have the addresses 100.64.0.<2 + index> and fd00::<2 + index>.
 */
export class Gateway implements PacketPolicy {
  readonly authorizations = new Authorizations(0, instantAt(0));
  readonly access = new Access(this.authorizations);
  readonly sessions: SessionTable<{ readonly resource: string }>;
  readonly resourceNat: ResourceNat;
  readonly station: Station;
  now: Instant = instantAt(0);

  constructor(kernel: FastPathKernel, seed: number) {
    this.sessions = new SessionTable({
      random: new SeededRandom(seed),
      onEnd: (session) => this.station.path.forgetSession(session),
    });
    this.resourceNat = new ResourceNat({
      hasOpenSession: (peer, proxy) => {
        const destination = ipAddressBytes(proxy);
        const source = addressBytes(`${destination.length === 4 ? '100.64.0.' : 'fd00::'}${peer}`);
        return this.sessions.hasBetween(source, destination);
      },
    });
    this.station = new Station({ kernel, policy: this });
    this.station.connect(0);
    this.station.connect(1);
  }

  inbound(peer: number, flow: Flow): FlowVerdict {
    if (isIcmpErrorFlow(flow)) return { type: 'drop', reason: 'icmp-error-outward' };
    const name = idOf(peer);
    const target = this.resourceNat.targetOfBytes(name, flow.destination);
    const decision = this.access.decideRequest(name, flow, target?.resource);
    if (decision.type === 'denied') {
      return { type: 'drop', reason: decision.reason, icmp: decision.icmp };
    }
    if (target === undefined) return { type: 'forward', peer };
    const tuple = requestTuple(flow);
    const isWithoutPorts = isPortless(flow);
    let session = isWithoutPorts
      ? this.sessions.findRequestFragment(tuple)
      : this.sessions.findRequest(tuple);
    if (session === undefined) {
      const destination = targetBytes(target);
      if (destination === undefined) {
        return { type: 'drop', reason: 'no-address', icmp: 'host-unreachable' };
      }
      const outside = { source: flow.source, destination };
      const tag = { resource: target.resource };
      const opened = this.sessions.open(tuple, outside, peer, tag, this.now);
      if (!opened.ok) return { type: 'drop', reason: opened.why, icmp: 'host-unreachable' };
      session = opened.value;
    }
    const rewrite = this.sessions.rewrite(session, false, isWithoutPorts);
    return { type: 'forward', peer, rewrite };
  }

  outbound(flow: Flow): FlowVerdict {
    const peer = (flow.destination.at(-1) ?? 0) - 2;
    if (peer !== 0 && peer !== 1) return { type: 'drop', reason: 'no-route' };
    if (isIcmpErrorFlow(flow)) return { type: 'local' };
    const tuple = replyTuple(flow);
    const isWithoutPorts = isPortless(flow);
    const session = isWithoutPorts
      ? this.sessions.findReplyFragment(tuple)
      : this.sessions.findReply(tuple);
    if (session !== undefined && this.sessions.hasEnded(session)) {
      return { type: 'drop', reason: 'expired-nat-session' };
    }
    const inside = session === undefined ? flow : this.#insideOf(session, flow);
    const resource = session === undefined ? undefined : this.sessions.tag(session)?.resource;
    const decision = this.access.decideReply(idOf(peer), inside, resource);
    if (decision.type === 'denied') return { type: 'drop', reason: decision.reason };
    if (session === undefined) return { type: 'forward', peer };
    return { type: 'forward', peer, rewrite: this.sessions.rewrite(session, true, isWithoutPorts) };
  }

  /** What the engine does after each batch. */
  settle(): void {
    const { path } = this.station;
    for (let facts = path.pollFlowFacts(); facts; facts = path.pollFlowFacts()) {
      this.sessions.handleFacts(facts.session, facts, this.now);
    }
    for (let local = path.pollLocal(); local; local = path.pollLocal()) {
      const translated = translateErrorOfSession(local.packet, this.sessions);
      if (translated.ok)
        path.sendPacket(this.sessions.owner(translated.value.session), translated.value.packet);
    }
    this.sessions.handleTimeout(this.now);
    this.authorizations.handleTimeout(this.now);
    for (
      let event = this.authorizations.pollEvent();
      event;
      event = this.authorizations.pollEvent()
    ) {
      path.invalidateFlows();
      if (event.type !== 'authorization-ended') continue;
      const { peer, resource } = event;
      this.sessions.endWhere(
        (session) =>
          idOf(this.sessions.owner(session)) === peer &&
          this.sessions.tag(session)?.resource === resource,
      );
    }
    for (let event = this.resourceNat.pollEvent(); event; event = this.resourceNat.pollEvent()) {
      if (event.type !== 'released') continue;
      const { peer, proxyIp } = event;
      this.sessions.endWhere(
        (session) =>
          idOf(this.sessions.owner(session)) === peer &&
          ipAddressFromBytes(this.sessions.tuple(session, 'inside').destination) === proxyIp,
      );
    }
  }

  /** The reply as the peer will see it: filters are about the port that it asked for. */
  #insideOf(session: number, flow: Flow): Flow {
    const { source, destination } = this.sessions.tuple(session, 'inside');
    return { ...flow, source: destination, destination: source };
  }
}

/** The id of a peer: the last number of its addresses. */
export function idOf(peer: number): string {
  return String(peer + 2);
}
