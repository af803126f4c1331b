import { parseName, type Name } from '../../../core/config/name.ts';
import { signEnvelope } from '../../../core/fleet/envelope.ts';
import { FleetDevice, type FleetDeviceOptions } from '../../../core/fleet/fleet-device.ts';
import { signDesired, type DesiredDocument } from '../../../core/fleet/operator.ts';
import { decodeBase64, encodeBase64 } from '../../../core/sansio/base64.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { decodeUtf8, encodeUtf8 } from '../../../core/sansio/utf8.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';

/** One fleet with one operator and one device, as the tests of the fleet channel use it. */

export const crypto = createNobleCrypto();
export const operatorKey = new Uint8Array(32).fill(1);
export const operatorPublicKey = crypto.ed25519.publicKey(operatorKey);
export const deviceKey = new Uint8Array(32).fill(2);
export const devicePublicKey = crypto.ed25519.publicKey(deviceKey);
export const fleet = nameOf('acme');
export const device = nameOf('r1');
/** 2026-01-01, and a time at which routers without a battery boot. */
export const UNIX_MS = 1_767_225_600_000;
export const CLOCK_FLOOR_MS = 1_750_000_000_000;

export function nameOf(text: string): Name {
  const name = parseName(text);
  if (name === undefined) throw new Error(`no name: ${text}`);
  return name;
}

export function configurationJson(peers = ['b']) {
  return {
    schema: 1,
    interface: { addresses: ['100.64.0.1/32'] },
    peers: peers.map((id) => ({
      id,
      publicKey: encodeBase64(new Uint8Array(32).fill(id.charCodeAt(0))),
      allowedIps: [`10.${id.charCodeAt(0)}.0.0/16`],
    })),
  };
}

export function envelope(
  version: number,
  change: Partial<DesiredDocument> = {},
  key: Uint8Array = operatorKey,
): Uint8Array {
  const document = { fleet, device, version, configuration: configurationJson(), ...change };
  const signed = signDesired(document, key, crypto);
  if (!signed.ok) throw new Error(JSON.stringify(signed.errors));
  return signed.value;
}

export function makeDevice(change: Partial<FleetDeviceOptions> = {}): FleetDevice {
  return new FleetDevice({ ...deviceOptions(), ...change }, instantAt(0));
}

export function deviceOptions(): FleetDeviceOptions {
  let fill = 0;
  return {
    fleet,
    device,
    operatorKeys: [operatorPublicKey],
    signingKey: deviceKey,
    bootId: 7,
    software: '0.1.0',
    kept: undefined,
    unixMs: UNIX_MS,
    clockFloorMs: CLOCK_FLOOR_MS,
    crypto,
    random: { fill: (out) => void out.fill((fill = (fill + 37) % 256)) },
    log: nullLog,
  };
}

/** Signs a configuration that `signDesired` would not sign. */
export function signedBody(version: number, configuration: unknown): Uint8Array {
  const body = { schema: 1, fleet, device, version, configuration };
  return signEnvelope(encodeUtf8(JSON.stringify(body)), operatorKey, crypto);
}

/** Returns the envelope with another version in its body under the old signature. */
export function forged(message: Uint8Array): Uint8Array {
  const envelope = JSON.parse(decodeUtf8(message) ?? '') as { body: string };
  const body = JSON.parse(decodeUtf8(decodeBase64(envelope.body)!) ?? '') as { version: number };
  const forgery = encodeUtf8(JSON.stringify({ ...body, version: body.version + 1 }));
  return encodeUtf8(JSON.stringify({ ...envelope, body: encodeBase64(forgery) }));
}
