import { createHash, createPrivateKey, createPublicKey, sign } from 'node:crypto';
import type { X509Certificate } from 'node:crypto';
import { equalInConstantTime } from '../../core/sansio/crypto.ts';

/** What a TLS server shows and proves, both as PEM. */
export interface DeviceCertificate {
  readonly certificate: string;
  /** Secret. */
  readonly privateKey: string;
}

/**
 * Makes the self-signed certificate (RFC 5280) of the device whose Ed25519 seed this is (RFC 8410). It is
 * valid from 1970 to 9999, because routers boot with a wrong clock, and the key in it is all that anybody
 * judges. Equal seeds give equal certificates.
 */
export function createDeviceCertificate(seed: Uint8Array): DeviceCertificate {
  // RFC 8410 §7: version 0, the algorithm, and the seed as an octet string within an octet string.
  const pkcs8 = sequence(integer(Uint8Array.of(0)), ED25519, octetString(octetString(seed)));
  const key = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' });
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'der' });
  const toBeSigned = sequence(
    explicit(0, integer(Uint8Array.of(V3))),
    integer(serialNumber(publicKey)),
    ED25519,
    NAME,
    sequence(utcTime('700101000000Z'), generalizedTime('99991231235959Z')),
    NAME,
    publicKey,
    explicit(3, sequence(SUBJECT_ALTERNATIVE_NAME)),
  );
  const signature = sign(undefined, toBeSigned, key);
  return {
    certificate: pem('CERTIFICATE', sequence(toBeSigned, ED25519, bitString(signature))),
    privateKey: pem('PRIVATE KEY', pkcs8),
  };
}

/**
 * Whether the certificate is the device's own: signed by itself, with this Ed25519 key and no other. Who
 * else vouches for it does not matter. That the other side has the key, TLS proves.
 */
export function isOfDevice(
  certificate: X509Certificate | undefined,
  deviceKey: Uint8Array,
): boolean {
  if (certificate === undefined) return false;
  const { publicKey } = certificate;
  if (publicKey.asymmetricKeyType !== 'ed25519') return false;
  // Not as JWK: exporting many fresh keys that way deadlocked Node.js 20.20.2.
  const raw = publicKey.export({ type: 'spki', format: 'der' }).subarray(-KEY_LENGTH);
  return equalInConstantTime(raw, deviceKey) && certificate.verify(publicKey);
}

const KEY_LENGTH = 32;

/** RFC 5280 §4.1.2.1: extensions make a certificate v3, which is written as 2. */
const V3 = 2;

/** RFC 5280 §4.1.2.2: positive, at most 20 bytes, and another one for another certificate. */
function serialNumber(publicKey: Uint8Array): Uint8Array {
  const serial = createHash('sha256').update(publicKey).digest().subarray(0, 16);
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40;
  return serial;
}

/* DER (X.690 §10): tag, length, content. */

const TAG = {
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
  /** Context-specific [2], primitive: a dNSName of RFC 5280 §4.2.1.6. */
  dnsName: 0x82,
  /** Context-specific and constructed, plus its number. */
  explicit: 0xa0,
} as const;

function element(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(contents);
  return Buffer.concat([Buffer.from([tag, ...lengthOctets(content.length)]), content]);
}

/** X.690 §8.1.3: one byte below 128, else the count of bytes and the bytes. */
function lengthOctets(length: number): readonly number[] {
  if (length < 0x80) return [length];
  return length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
}

function sequence(...elements: readonly Uint8Array[]): Buffer {
  return element(TAG.sequence, ...elements);
}

/** `bytes` are the shortest form of the number, its first bit clear. */
function integer(bytes: Uint8Array): Buffer {
  return element(TAG.integer, bytes);
}

/** A whole number of bytes: no unused bits in the last one. */
function bitString(bytes: Uint8Array): Buffer {
  return element(TAG.bitString, Uint8Array.of(0), bytes);
}

function octetString(bytes: Uint8Array): Buffer {
  return element(TAG.octetString, bytes);
}

function objectIdentifier(...encoded: readonly number[]): Buffer {
  return element(TAG.objectIdentifier, Uint8Array.from(encoded));
}

function utcTime(text: string): Buffer {
  return element(TAG.utcTime, Buffer.from(text));
}

function generalizedTime(text: string): Buffer {
  return element(TAG.generalizedTime, Buffer.from(text));
}

function explicit(number: number, content: Uint8Array): Buffer {
  return element(TAG.explicit + number, content);
}

/** 1.3.101.112, without parameters (RFC 8410 §3). */
const ED25519 = sequence(objectIdentifier(0x2b, 0x65, 0x70));

/** CN (2.5.4.3) = culvert. */
const NAME = sequence(
  element(
    TAG.set,
    sequence(objectIdentifier(0x55, 0x04, 0x03), element(TAG.utf8String, Buffer.from('culvert'))),
  ),
);

/** 2.5.29.17: what looks for a name in a certificate looks here alone (RFC 9525 §6). */
const SUBJECT_ALTERNATIVE_NAME = sequence(
  objectIdentifier(0x55, 0x1d, 0x11),
  octetString(sequence(element(TAG.dnsName, Buffer.from('culvert')))),
);

/** RFC 7468: lines of 64 characters. */
function pem(label: string, der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n');
}
