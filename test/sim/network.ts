import type { IpAddress } from '../../core/net/ip-address.ts';
import { socketAddressIp, type SocketAddress } from '../../core/net/socket-address.ts';
import { after } from '../../core/sansio/instant.ts';
import type { Happening } from './event-queue.ts';
import type { Direction } from './link.ts';
import type { Timeline } from './timeline.ts';

/** A UDP datagram on its way. */
export interface Packet {
  readonly from: SocketAddress;
  readonly to: SocketAddress;
  readonly payload: Uint8Array;
  readonly tos: number;
}

/** What hangs on a network and has addresses there: a host, or a gateway for what is behind it. */
export interface Member {
  receive(packet: Packet): void;
}

/** The way out of a network. */
export interface WayOut {
  leave(packet: Packet): void;
  /** An address inside that is not translated is to be known outside too. */
  announce(address: IpAddress): void;
  withdraw(address: IpAddress): void;
}

interface Attachment {
  readonly member: Member;
  /** The line down to the member. */
  readonly down: Direction;
}

/** A network in which every member reaches every other: a LAN, a carrier's network, the Internet. */
export class Network {
  readonly name: string;
  readonly timeline: Timeline;
  wayOut: WayOut | undefined;
  /** Packets for addresses that nobody has. */
  unreachable = 0;
  readonly #attachments = new Map<IpAddress, Attachment>();
  readonly #ipv4Prefix: string;
  readonly #ipv6Prefix: string;
  readonly #blocks = new Set<(packet: Packet) => boolean>();
  #lastHost = 0;

  /** The prefixes are text in front of the number of a host: `192.168.1.` and `2001:db8:1::`. */
  constructor(name: string, timeline: Timeline, ipv4Prefix: string, ipv6Prefix: string) {
    this.name = name;
    this.timeline = timeline;
    this.#ipv4Prefix = ipv4Prefix;
    this.#ipv6Prefix = ipv6Prefix;
  }

  /** Gives an IPv4 and an IPv6 address that nobody has yet. */
  newAddresses(): readonly [IpAddress, IpAddress] {
    const host = ++this.#lastHost;
    if (host > 254) throw new Error(`${this.name} is full`);
    const ipv6 = `${this.#ipv6Prefix}${host.toString(16)}`;
    return [`${this.#ipv4Prefix}${host}` as IpAddress, ipv6 as IpAddress];
  }

  attach(address: IpAddress, member: Member, down: Direction): void {
    if (this.#attachments.has(address)) throw new Error(`${address} is taken in ${this.name}`);
    this.#attachments.set(address, { member, down });
    this.wayOut?.announce(address);
  }

  detach(address: IpAddress): void {
    this.#attachments.delete(address);
    this.wayOut?.withdraw(address);
  }

  memberAt(address: IpAddress): Member | undefined {
    return this.#attachments.get(address)?.member;
  }

  /** Drops what the predicate is true for; returns how to end that. */
  block(predicate: (packet: Packet) => boolean): () => void {
    this.#blocks.add(predicate);
    return () => void this.#blocks.delete(predicate);
  }

  /** Carries a packet from a member, over its line, to another one or out of the network. */
  send(packet: Packet, up: Direction): void {
    this.#carry(packet, up, this.wayOut);
  }

  /** Carries a packet that came in from outside. */
  enter(packet: Packet): void {
    this.#carry(packet, undefined, undefined);
  }

  #carry(packet: Packet, up: Direction | undefined, wayOut: WayOut | undefined): void {
    for (const isBlocked of this.#blocks) if (isBlocked(packet)) return;
    const attachment = this.#attachments.get(socketAddressIp(packet.to));
    if (attachment === undefined && wayOut === undefined) {
      this.unreachable++;
      return;
    }
    const target = attachment ?? wayOut;
    if (target !== undefined) new Flight(this.timeline, packet, up, target).happen();
  }
}

/** A packet on the line up to a network, then on the line down to its receiver. */
class Flight implements Happening {
  readonly #timeline: Timeline;
  readonly #packet: Packet;
  readonly #target: Attachment | WayOut;
  /** The lines that it has yet to take. */
  #up: Direction | undefined;
  #down: Direction | undefined;

  constructor(
    timeline: Timeline,
    packet: Packet,
    up: Direction | undefined,
    target: Attachment | WayOut,
  ) {
    this.#timeline = timeline;
    this.#packet = packet;
    this.#target = target;
    this.#up = up;
    this.#down = 'down' in target ? target.down : undefined;
  }

  happen(): void {
    const line = this.#up ?? this.#down;
    if (line === undefined) return this.#arrive();
    if (this.#up === undefined) this.#down = undefined;
    this.#up = undefined;
    const { now } = this.#timeline;
    const copies = line.carry(sizeOf(this.#packet), now);
    if (copies > 0) this.#timeline.schedule(after(now, line.delays[0]), this);
    if (copies > 1) this.#timeline.schedule(after(now, line.delays[1]), this.#copy());
  }

  #copy(): Flight {
    const copy = new Flight(this.#timeline, this.#packet, undefined, this.#target);
    copy.#down = this.#down;
    return copy;
  }

  #arrive(): void {
    if ('down' in this.#target) this.#target.member.receive(this.#packet);
    else this.#target.leave(this.#packet);
  }
}

/** IP and UDP headers included. */
function sizeOf({ to, payload }: Packet): number {
  return payload.length + (to.startsWith('[') ? 48 : 28);
}
