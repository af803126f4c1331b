import { ipFamily, type IpAddress } from '../net/ip-address.ts';
import { socketAddress, socketAddressPort } from '../net/socket-address.ts';
import { IpPacket } from '../packet/ip-packet.ts';
import { buildUdpPacket, readUdp, type MalformedUdp } from '../packet/udp.ts';
import type { Instant } from '../sansio/instant.ts';
import { failed, type Outcome } from '../sansio/outcome.ts';
import { TokenBucket } from '../sansio/token-bucket.ts';
import {
  decodePeering,
  encodePeering,
  LONGEST_PEERING,
  PEERING_PORT,
  type PeeringMessage,
} from './message.ts';

/** Messages of one peer that are read; what comes faster is dropped, and repeated by its sender. */
export const PEERING_MESSAGES_PER_SECOND = 20;

/** Why a packet was dropped. */
export type PeeringDrop =
  | 'unknown-peer'
  | 'malformed'
  | 'not-for-us'
  | 'not-from-peer'
  | 'rate-limited'
  | 'unknown-type'
  | MalformedUdp;

/**
 * Carries peering messages as UDP datagrams between tunnel addresses. The tunnel authenticates the peer
 * that sent a packet; that its daemon did so, and no host behind it, is told by the source address, which
 * the guard of the peer keeps for its daemon (see `guardOutbound`).
 *
 * It keeps one entry for each peer that the caller sets, and nothing else.
 */
export class Peering {
  /** Dropped packets by reason, named so that they stay apart among the drops of others. */
  readonly drops: Record<`peering-${PeeringDrop}`, number> = noDrops();
  readonly #peers = new Map<number, Peer>();
  readonly #packet = new IpPacket();
  #own: readonly IpAddress[] = [];

  /** Sets our addresses in the tunnel. Flows that the guard decided are to be decided again. */
  setOwnAddresses(addresses: readonly IpAddress[]): void {
    this.#own = addresses.slice();
  }

  /** Sets the addresses in the tunnel of a peer that runs Culvert; the same holds for flows. */
  setPeer(index: number, addresses: readonly IpAddress[]): void {
    this.#peers.set(index, {
      addresses: addresses.slice(),
      bucket: this.#peers.get(index)?.bucket,
    });
  }

  removePeer(index: number): void {
    this.#peers.delete(index);
  }

  isOwnAddress(address: IpAddress): boolean {
    return this.#own.includes(address);
  }

  /**
   * Whether the daemon of the peer may have the address. Where no address of it is known in that family,
   * every address behind the peer may be the one at which it takes us at our word.
   */
  mayBeDaemon(index: number, address: IpAddress): boolean {
    const peer = this.#peers.get(index);
    if (peer === undefined) return false;
    const family = ipFamily(address);
    const known = peer.addresses.filter((candidate) => ipFamily(candidate) === family);
    return known.length === 0 || known.includes(address);
  }

  /**
   * Returns the IP packet that carries the message; `undefined` where no family has both addresses, and for
   * a message that is longer than any that is read.
   */
  send(index: number, message: PeeringMessage): Uint8Array | undefined {
    const payload = encodePeering(message);
    if (payload.length > LONGEST_PEERING) return undefined;
    const addresses = this.#peers.get(index)?.addresses ?? [];
    for (const own of this.#own) {
      const address = addresses.find((candidate) => ipFamily(candidate) === ipFamily(own));
      if (address === undefined) continue;
      return buildUdpPacket({
        source: socketAddress(own, PEERING_PORT),
        destination: socketAddress(address, PEERING_PORT),
        payload,
      });
    }
    return undefined;
  }

  /** Reads an IP packet that the peer sent, authentically. */
  read(index: number, packet: Uint8Array, now: Instant): Outcome<PeeringMessage, PeeringDrop> {
    const outcome = this.#read(index, packet, now);
    if (!outcome.ok) this.drops[`peering-${outcome.why}`]++;
    return outcome;
  }

  #read(index: number, bytes: Uint8Array, now: Instant): Outcome<PeeringMessage, PeeringDrop> {
    const peer = this.#peers.get(index);
    if (peer === undefined) return failed('unknown-peer');
    const packet = this.#packet;
    if (packet.read(bytes, 0, bytes.length) !== undefined) return failed('malformed');
    if (!this.isOwnAddress(packet.destination)) return failed('not-for-us');
    if (!peer.addresses.includes(packet.source)) return failed('not-from-peer');
    peer.bucket ??= new TokenBucket(PEERING_MESSAGES_PER_SECOND, PEERING_MESSAGES_PER_SECOND, now);
    if (!peer.bucket.take(now)) return failed('rate-limited');
    const udp = readUdp(packet);
    if (!udp.ok) return udp;
    if (socketAddressPort(udp.value.destination) !== PEERING_PORT) return failed('not-for-us');
    return decodePeering(udp.value.payload);
  }
}

interface Peer {
  readonly addresses: readonly IpAddress[];
  /** Made for the first packet. */
  bucket: TokenBucket | undefined;
}

function noDrops(): Record<`peering-${PeeringDrop}`, number> {
  return {
    'peering-unknown-peer': 0,
    'peering-malformed': 0,
    'peering-not-for-us': 0,
    'peering-not-from-peer': 0,
    'peering-rate-limited': 0,
    'peering-not-udp': 0,
    'peering-fragment': 0,
    'peering-truncated-udp': 0,
    'peering-bad-udp-checksum': 0,
    'peering-unknown-type': 0,
  };
}
