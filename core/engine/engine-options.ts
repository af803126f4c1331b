import type { DomainName } from '../dns/name.ts';
import type { TransportCipher } from '../fastpath/cipher.ts';
import type { FastPathKernel } from '../fastpath/kernel.ts';
import type { FleetDeviceOptions } from '../fleet/fleet-device.ts';
import type { Crypto } from '../sansio/crypto.ts';
import type { Log } from '../sansio/log.ts';
import type { Random } from '../sansio/random.ts';
import type { KeptCandidates } from './kept-candidates.ts';
import type { KeptFlows } from './kept-sessions.ts';

export interface EngineOptions {
  /** X25519 private key of this device. */
  readonly privateKey: Uint8Array;
  readonly unixMs: number;
  readonly crypto: Crypto;
  readonly random: Random;
  readonly kernel: FastPathKernel;
  readonly cipher: TransportCipher;
  /** `undefined` where the device stands alone. */
  readonly fleet: FleetDeviceOptions | undefined;
  /** Version of the daemon, which relays are told. */
  readonly software: string;
  /** Where peers were when the daemon last ran. */
  readonly keptCandidates: KeptCandidates;
  /** Which proxies names had when the daemon last ran. */
  readonly keptProxies: Iterable<readonly [DomainName, number]>;
  /** What was open when it restarted. */
  readonly keptFlows: KeptFlows;
  readonly log: Log;
}
