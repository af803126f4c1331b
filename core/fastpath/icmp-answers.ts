import { ipAddressFromBytes, ipFamily, type IpAddress } from '../net/ip-address.ts';
import { buildIcmpError, type IcmpError } from '../packet/icmp.ts';
import { IpPacket } from '../packet/ip-packet.ts';
import { elapsed, type Instant } from '../sansio/instant.ts';

/** ICMP errors that we send (RFC 4443 §2.4(f) asks for a token bucket): as the Linux kernel's icmp_msgs_*. */
const ERRORS_PER_SECOND = 1000;
const BURST = 50;

/** Makes the ICMP errors about packets in the arena, at a limited rate. */
export class IcmpAnswers {
  readonly #bytes: Uint8Array;
  readonly #packet = new IpPacket();
  #addresses: readonly IpAddress[] = [];
  #tokens = BURST;
  #filledAt: Instant | undefined;

  constructor(arena: ArrayBuffer) {
    this.#bytes = new Uint8Array(arena);
  }

  /** Our own addresses in the tunnel, the sources of errors for peers. */
  setAddresses(addresses: readonly IpAddress[]): void {
    this.#addresses = addresses;
  }

  /** Returns the error for the peer that sent the packet, or `undefined` where none may be sent. */
  forPeer(error: IcmpError, offset: number, length: number, now: Instant): Uint8Array | undefined {
    return this.#answer(error, offset, length, true, now);
  }

  /**
   * Returns the error for who sent the packet into the TUN. It comes from the destination: Linux takes no IPv4
   * packet out of a device whose source is an address of its own, a martian (RFC 1812 §5.3.7).
   */
  forSite(error: IcmpError, offset: number, length: number, now: Instant): Uint8Array | undefined {
    return this.#answer(error, offset, length, false, now);
  }

  #answer(
    error: IcmpError,
    offset: number,
    length: number,
    isForPeer: boolean,
    now: Instant,
  ): Uint8Array | undefined {
    if (this.#packet.read(this.#bytes, offset, length) !== undefined) return undefined;
    if (!this.#takeToken(now)) return undefined;
    const own = isForPeer ? this.#ownAddress() : undefined;
    const answer = buildIcmpError(error, this.#packet, own ?? this.#destination());
    return answer.ok ? answer.value : undefined;
  }

  #ownAddress(): IpAddress | undefined {
    return this.#addresses.find((address) => ipFamily(address) === this.#packet.family);
  }

  /** In its name we answer also without an address in its family: the sender trusts it as much. */
  #destination(): IpAddress {
    const { destinationOffset: at, addressLength } = this.#packet;
    return ipAddressFromBytes(this.#bytes.subarray(at, at + addressLength));
  }

  #takeToken(now: Instant): boolean {
    const grown = (elapsed(this.#filledAt ?? now, now) * ERRORS_PER_SECOND) / 1000;
    this.#tokens = Math.min(BURST, this.#tokens + grown);
    this.#filledAt = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
