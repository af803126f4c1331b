import type { Flow, Rewrite } from '../fastpath/flow.ts';
import { ipAddressBytes, ipFamily } from '../net/ip-address.ts';
import { networkOf, type IpPrefix } from '../net/ip-prefix.ts';
import { PrefixTable } from '../net/prefix-table.ts';
import { BugError, ok, type Outcome } from '../sansio/outcome.ts';
import {
  readQuotedPacket,
  rewriteIcmpError,
  type Replacement,
  type UntranslatedError,
} from './icmp-translation.ts';

/** A network of this site, and the one of the same size as which it is known in the tunnel. */
export interface PrefixMap {
  readonly local: IpPrefix;
  readonly mapped: IpPrefix;
}

/**
 * 1:1 translation of whole networks (RFC 3022 §2 for addresses alone), for sites that use the same ones.
 * It has no state: host n of the local network is host n of the mapped one. Sources of what goes into the
 * tunnel are mapped, destinations of what comes out of it are mapped back; the other address of a packet
 * belongs to the other site, and is as that one maps it.
 */
export class PrefixNat {
  readonly #mapped = new PrefixTable<Mapping>();
  readonly #local = new PrefixTable<Mapping>();
  #isEmpty = true;

  /** Replaces all maps. The families and lengths of the two sides must be equal. */
  setMaps(maps: readonly PrefixMap[]): void {
    this.#mapped.removeWhere(() => true);
    this.#local.removeWhere(() => true);
    this.#isEmpty = maps.length === 0;
    for (const { local, mapped } of maps) {
      if (local.length !== mapped.length || ipFamily(local.address) !== ipFamily(mapped.address)) {
        throw new BugError('prefix map of different sizes');
      }
      this.#local.insert(local, mappingTo(mapped));
      this.#mapped.insert(mapped, mappingTo(local));
    }
  }

  /** Returns the new source of packets into the tunnel, or `undefined` where it stays. */
  outbound(flow: Flow): Rewrite | undefined {
    if (this.#isEmpty) return undefined;
    const source = mapAddress(this.#local, flow.source);
    return source && { source };
  }

  /** Returns the new destination of packets out of the tunnel, or `undefined` where it stays. */
  inbound(flow: Flow): Rewrite | undefined {
    if (this.#isEmpty) return undefined;
    const destination = mapAddress(this.#mapped, flow.destination);
    return destination && { destination };
  }

  /** Translates an error that goes into the tunnel, about a packet that came out of it. */
  outboundError(packet: Uint8Array, source: Uint8Array): Outcome<Uint8Array, UntranslatedError> {
    const quoted = readQuotedPacket(packet);
    if (!quoted.ok) return quoted;
    const newSource = mapAddress(this.#local, source);
    const destination = mapAddress(this.#local, quoted.value.destination);
    return ok(
      rewriteIcmpError(
        packet,
        { ...(newSource && { source: newSource }) },
        destinationOnly(destination),
      ),
    );
  }

  /** Translates an error that comes out of the tunnel, about a packet that went into it. */
  inboundError(packet: Uint8Array): Outcome<Uint8Array, UntranslatedError> {
    const quoted = readQuotedPacket(packet);
    if (!quoted.ok) return quoted;
    // It is addressed to the source of the packet that it quotes.
    const source = mapAddress(this.#mapped, quoted.value.source);
    return ok(rewriteIcmpError(packet, destinationOnly(source), { ...(source && { source }) }));
  }
}

/** The network bits of an address, and which bits they are. */
interface Mapping {
  readonly network: Uint8Array;
  readonly length: number;
}

function mappingTo(prefix: IpPrefix): Mapping {
  return { network: ipAddressBytes(networkOf(prefix).address), length: prefix.length };
}

function destinationOnly(destination: Uint8Array | undefined): Replacement {
  return { ...(destination && { destination }) };
}

/** Returns the address with other network bits. */
function mapAddress(table: PrefixTable<Mapping>, address: Uint8Array): Uint8Array | undefined {
  const mapping = table.lookupBytes(address, 0, address.length === 4 ? 4 : 6);
  if (mapping === undefined) return undefined;
  return address.map((byte, i) => {
    const bits = Math.min(Math.max(mapping.length - i * 8, 0), 8);
    const hostMask = 0xff >> bits;
    return (mapping.network[i] ?? 0) | (byte & hostMask);
  });
}
