import type { Bootstrap } from '../core/config/bootstrap.ts';
import { KEPT_DESIRED, readKeptDesired } from '../core/engine/kept-desired.ts';
import type { FleetDeviceOptions } from '../core/fleet/fleet-device.ts';
import type { Files } from '../core/plugin/files.ts';
import type { Crypto } from '../core/sansio/crypto.ts';
import type { Log } from '../core/sansio/log.ts';
import { decodeUtf8, encodeUtf8 } from '../core/sansio/utf8.ts';
import { nodeRandom } from '../plugins/platform-node/index.ts';
import type { Identity } from './identity.ts';
import { readStateFile } from './state-file.ts';
import { builtAtMs, version } from './version.ts';

const BOOT_COUNTER = 'boot';

/** Gathers what a device of a fleet starts from: its bootstrap, its keys, and what it kept. */
export function fleetOptions(
  { fleet, device, operatorKeys, interface: local }: Bootstrap,
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
    ...(local === undefined ? {} : { local }),
    signingKey: own.identity.signingKey,
    kept: desired,
    bootId: nextBootId(own.store, own.unixMs, own.log),
    clockFloorMs: builtAtMs,
    software: version,
    unixMs: own.unixMs,
    random: nodeRandom,
    crypto: own.crypto,
    log: own.log,
  };
}

/**
 * Counts this start: without it what the device says could be replayed. Where the counter is damaged it
 * goes on from the seconds of the calendar, which no count of starts reaches; where it cannot be kept it
 * is these seconds, because a full flash must not cost a router its tunnel.
 */
function nextBootId(store: Files, unixMs: number, log: Log): number {
  const stored = readStateFile(store, BOOT_COUNTER);
  const text = stored === undefined ? '0' : (decodeUtf8(stored) ?? '').trim();
  const seconds = Math.floor(unixMs / 1000);
  const next = (/^\d{1,12}$/.test(text) ? Number(text) : seconds) + 1;
  const written = store.write(BOOT_COUNTER, encodeUtf8(`${next}\n`));
  if (written.ok) return next;
  log.warn('this start is not counted: is the state directory full?');
  return Math.max(next, seconds);
}
