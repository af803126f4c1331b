import type { IpAddress } from './ip-address.ts';

/** Where a datagram leaves from. */
export interface Source {
  /** One of our addresses; without it the kernel chooses. */
  readonly local?: IpAddress;
  /** The interface; routes decide without it. */
  readonly ifindex?: number;
}
