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

  /** Our own addresses in the tunnel, the sources of the errors. */
  setAddresses(addresses: readonly IpAddress[]): void {
    this.#addresses = addresses;
  }

  /** Returns the error about the packet, or `undefined` where none may be sent. */
  answer(error: IcmpError, offset: number, length: number, now: Instant): Uint8Array | undefined {
    if (this.#packet.read(this.#bytes, offset, length) !== undefined) return undefined;
    if (!this.#takeToken(now)) return undefined;
    const answer = buildIcmpError(error, this.#packet, this.#source());
    return answer.ok ? answer.value : undefined;
  }

  /** Without an address in its family we answer in the name of the destination, which the sender trusts as much. */
  #source(): IpAddress {
    const { family, destinationOffset, addressLength } = this.#packet;
    const own = this.#addresses.find((address) => ipFamily(address) === family);
    return (
      own ??
      ipAddressFromBytes(this.#bytes.subarray(destinationOffset, destinationOffset + addressLength))
    );
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
