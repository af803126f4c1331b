import type { Crypto } from '../sansio/crypto.ts';
import type { Log } from '../sansio/log.ts';
import type { Random } from '../sansio/random.ts';

/** What `Connections` starts from. */
export interface ConnectionsOptions {
  /** X25519 private key of this device. */
  readonly privateKey: Uint8Array;
  /** Name of the fleet, empty for a device that stands alone; and of the device. */
  readonly fleet: string;
  readonly device: string;
  /** Version of the daemon, which relays are told. */
  readonly software: string;
  readonly unixMs: number;
  readonly crypto: Crypto;
  readonly random: Random;
  readonly log: Log;
}
