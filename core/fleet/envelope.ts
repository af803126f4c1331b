/**
 * The envelope that carries a desired state from an operator to one device, through a broker that is
 * not trusted:
 *
 *     {"body":"<base64>","key":"<key id>","signature":"<base64>"}
 *
 * The body is the exact bytes that were signed, JSON in UTF-8 (`jq -r .body | base64 -d | jq`). Nothing
 * is serialised again to verify it. The signature is Ed25519 over DOMAIN ‖ body.
 */
import * as v from 'valibot';
import { parseConfiguration, type Configuration } from '../config/configuration.ts';
import { LIMITS } from '../config/defaults.ts';
import type { ConfigurationError } from '../config/error.ts';
import { name, wholeNumber } from '../config/field.ts';
import type { Name } from '../config/name.ts';
import { decodeBase64, encodeBase64 } from '../sansio/base64.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { encodeHex } from '../sansio/hex.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import { parseJson } from './json.ts';

/** What an operator wants of one device. */
export interface DesiredState {
  readonly fleet: Name;
  readonly device: Name;
  /** Grows with each document; a device never takes an older one than the last it took. */
  readonly version: number;
  /** Seconds since 1970-01-01 UTC. The device holds the document back until then. */
  readonly notBefore?: number;
  /**
   * Seconds since 1970-01-01 UTC until which the device may take the document up. Once taken up it
   * holds without limit: a device that hears nothing runs on.
   */
  readonly notAfter?: number;
  /** Allows a configuration without peers to follow one with peers. */
  readonly removeAllPeers: boolean;
  readonly configuration: Configuration;
}

export interface Expectation {
  readonly fleet: Name;
  readonly device: Name;
  readonly operatorKeys: readonly Uint8Array[];
  /** The highest version taken so far; 0 for none. */
  readonly version: number;
  /** What runs at present; `undefined` lets the same version in again. */
  readonly current: Configuration | undefined;
  /** The calendar, or `undefined` while the clock is not known to be set. */
  readonly unixMs: number | undefined;
}

export type RefusalReason =
  | 'too-large'
  | 'malformed'
  | 'unknown-operator-key'
  | 'bad-signature'
  | 'wrong-fleet'
  | 'wrong-device'
  | 'older-version'
  /** Another document with the version of the one that runs. */
  | 'same-version'
  | 'invalid-configuration'
  /** No peers where there are some, without `removeAllPeers`. */
  | 'would-remove-all-peers'
  | 'expired'
  | 'not-yet-valid'
  /** It has a time limit, and the clock is not set. */
  | 'clock-unknown';

export interface Refusal {
  readonly ok: false;
  readonly why: RefusalReason;
  /** Absent as long as the signature does not vouch for it. */
  readonly version?: number;
  readonly notBefore?: number;
  /** Of `invalid-configuration` and of a malformed body. */
  readonly errors: readonly ConfigurationError[];
}

export type Verification = { readonly ok: true; readonly value: DesiredState } | Refusal;

/** Bytes of an envelope: the largest body in base64, and the rest. */
export const MAX_ENVELOPE_BYTES: number = Math.ceil(LIMITS.documentBytes / 3) * 4 + 512;

/** Names an operator key in an envelope; short, for it only tells keys apart. */
export function operatorKeyId(publicKey: Uint8Array, crypto: Crypto): string {
  return encodeHex(crypto.sha256(publicKey).subarray(0, 8));
}

/** Signs the body as it is; `privateKey` is the 32-byte Ed25519 seed. */
export function signEnvelope(body: Uint8Array, privateKey: Uint8Array, crypto: Crypto): Uint8Array {
  const signature = crypto.ed25519.sign(privateKey, signedBytes(body));
  const envelope = {
    body: encodeBase64(body),
    key: operatorKeyId(crypto.ed25519.publicKey(privateKey), crypto),
    signature: encodeBase64(signature),
  };
  return encodeUtf8(JSON.stringify(envelope));
}

/** Names the document that a device reports on, whether it could read it or not. */
export function envelopeHash(envelope: Uint8Array, crypto: Crypto): string {
  return encodeHex(crypto.sha256(envelope));
}

/**
 * Decides whether the device takes this document. The signature comes before everything that the
 * sender could have made up, the configuration before the calendar, so that a document for later is
 * known to be good.
 */
export function verifyEnvelope(
  envelope: Uint8Array,
  expected: Expectation,
  crypto: Crypto,
): Verification {
  const opened = openEnvelope(envelope);
  if (!opened.ok) return opened;
  const { body, keyId, signature } = opened.value;
  const key = expected.operatorKeys.find((known) => operatorKeyId(known, crypto) === keyId);
  if (key === undefined) return refuse('unknown-operator-key');
  if (!crypto.ed25519.verify(key, signedBytes(body), signature)) return refuse('bad-signature');

  const header = parseHeader(body);
  if (!header.ok) return header;
  const { version, notBefore } = header.value;
  const mismatch = mismatchOf(header.value, expected);
  if (mismatch !== undefined) return refuse(mismatch, { version });

  const state = parseState(header.value);
  if (!state.ok) return state;
  const isEmpty = state.value.configuration.peers.length === 0;
  if (isEmpty && !state.value.removeAllPeers && (expected.current?.peers.length ?? 0) > 0) {
    return refuse('would-remove-all-peers', { version });
  }
  const untimely = untimelinessOf(header.value, expected.unixMs);
  if (untimely === undefined) return state;
  return refuse(untimely, { version, ...(notBefore === undefined ? {} : { notBefore }) });
}

/**
 * Reads a document that the device took before and kept. Neither signature nor calendar count: it lies
 * beside the keys that would vouch for it, and a rotated key must not stop a router.
 */
export function readKeptEnvelope(envelope: Uint8Array): Verification {
  const opened = openEnvelope(envelope);
  if (!opened.ok) return opened;
  const header = parseHeader(opened.value.body);
  return header.ok ? parseState(header.value) : header;
}

/** Keeps a signature from being taken for one over something else. */
const DOMAIN = encodeUtf8('culvert/1 desired state\0');

function signedBytes(body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(DOMAIN.length + body.length);
  bytes.set(DOMAIN);
  bytes.set(body, DOMAIN.length);
  return bytes;
}

const envelopeSchema = v.strictObject({
  body: v.string(),
  key: v.pipe(v.string(), v.regex(/^[0-9a-f]{16}$/)),
  signature: v.string(),
});

interface OpenEnvelope {
  readonly body: Uint8Array;
  readonly keyId: string;
  readonly signature: Uint8Array;
}

function openEnvelope(
  envelope: Uint8Array,
): { readonly ok: true; readonly value: OpenEnvelope } | Refusal {
  if (envelope.length > MAX_ENVELOPE_BYTES) return refuse('too-large');
  const outer = v.safeParse(envelopeSchema, parseJson(envelope));
  if (!outer.success) return refuse('malformed');
  const body = decodeBase64(outer.output.body);
  const signature = decodeBase64(outer.output.signature);
  if (body === undefined || signature?.length !== 64) return refuse('malformed');
  if (body.length > LIMITS.documentBytes) return refuse('too-large');
  return { ok: true, value: { body, keyId: outer.output.key, signature } };
}

const seconds = wholeNumber(0, Number.MAX_SAFE_INTEGER);

const headerSchema = v.strictObject({
  schema: v.literal(1),
  fleet: name,
  device: name,
  version: wholeNumber(1, Number.MAX_SAFE_INTEGER),
  notBefore: v.exactOptional(seconds),
  notAfter: v.exactOptional(seconds),
  removeAllPeers: v.optional(v.boolean(), false),
  configuration: v.unknown(),
});

type Header = v.InferOutput<typeof headerSchema>;

function parseHeader(body: Uint8Array): { readonly ok: true; readonly value: Header } | Refusal {
  const parsed = v.safeParse(headerSchema, parseJson(body));
  return parsed.success ? { ok: true, value: parsed.output } : refuse('malformed');
}

function parseState(header: Header): Verification {
  const { schema: _, configuration, ...rest } = header;
  const parsed = parseConfiguration(configuration);
  if (parsed.ok) return { ok: true, value: { ...rest, configuration: parsed.value } };
  return refuse('invalid-configuration', { version: header.version, errors: parsed.errors });
}

function mismatchOf(header: Header, expected: Expectation): RefusalReason | undefined {
  if (header.fleet !== expected.fleet) return 'wrong-fleet';
  if (header.device !== expected.device) return 'wrong-device';
  if (header.version < expected.version) return 'older-version';
  const isTaken = header.version === expected.version && expected.current !== undefined;
  return isTaken ? 'same-version' : undefined;
}

function untimelinessOf(header: Header, unixMs: number | undefined): RefusalReason | undefined {
  const { notBefore, notAfter } = header;
  if (notBefore === undefined && notAfter === undefined) return undefined;
  if (unixMs === undefined) return 'clock-unknown';
  if (notAfter !== undefined && unixMs > notAfter * 1000) return 'expired';
  return notBefore !== undefined && unixMs < notBefore * 1000 ? 'not-yet-valid' : undefined;
}

function refuse(why: RefusalReason, details: Partial<Refusal> = {}): Refusal {
  return { errors: [], ...details, ok: false, why };
}
