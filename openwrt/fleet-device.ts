import type { Bootstrap } from '../core/config/bootstrap.ts';
import { KEPT_DESIRED, readKeptDesired } from '../core/engine/kept-desired.ts';
import type { FleetDeviceOptions } from '../core/fleet/fleet-device.ts';
import type { Files } from '../core/plugin/files.ts';
import type { Crypto } from '../core/sansio/crypto.ts';
import type { Log } from '../core/sansio/log.ts';
import { decodeUtf8, encodeUtf8 } from '../core/sansio/utf8.ts';
import { nodeRandom } from '../plugins/platform-node/index.ts';
import { CommandError } from './exit-code.ts';
import type { Identity } from './identity.ts';
import { readStateFile } from './state-file.ts';
import { builtAtMs, version } from './version.ts';

const BOOT_COUNTER = 'boot';

/** Gathers what a device of a fleet starts from: its bootstrap, its keys, and what it kept. */
export function fleetOptions(
  { fleet, device, operatorKeys }: Bootstrap,
  own: {
    readonly identity: Identity;
    readonly store: Files;
    readonly crypto: Crypto;
    readonly log: Log;
    readonly unixMs: number;
  },
): FleetDeviceOptions {
  const kept = readStateFile(own.store, KEPT_DESIRED);
  const desired = kept === undefined ? undefined : readKeptDesired(kept);
  if (kept !== undefined && desired === undefined) {
    own.log.warn('the kept desired state is damaged, waiting for the fleet');
  }
  return {
    fleet,
    device,
    operatorKeys,
    signingKey: own.identity.signingKey,
    kept: desired,
    bootId: nextBootId(own.store, own.unixMs),
    clockFloorMs: builtAtMs,
    software: version,
    unixMs: own.unixMs,
    random: nodeRandom,
    crypto: own.crypto,
    log: own.log,
  };
}

/**
 * Counts this start. Without it what the device says could be replayed, so it must be kept. Where the
 * counter is damaged it goes on from the seconds of the calendar, which no count of starts reaches.
 */
function nextBootId(store: Files, unixMs: number): number {
  const stored = readStateFile(store, BOOT_COUNTER);
  const text = stored === undefined ? '0' : (decodeUtf8(stored) ?? '').trim();
  const last = /^\d{1,12}$/.test(text) ? Number(text) : Math.floor(unixMs / 1000);
  const next = last + 1;
  const written = store.write(BOOT_COUNTER, encodeUtf8(`${next}\n`));
  if (written.ok) return next;
  throw new CommandError('failure', 'cannot write the boot counter: is the state directory full?');
}
