import { equalInConstantTime } from '../../core/sansio/crypto.ts';
import type { Aead, Blake2s, Crypto, Ed25519, X25519 } from '../../core/sansio/crypto.ts';
import { decodeHex } from '../../core/sansio/hex.ts';
import { encodeUtf8 } from '../../core/sansio/utf8.ts';

const abc = Uint8Array.of(0x61, 0x62, 0x63);
const nothing = new Uint8Array(0);
const zeros = new Uint8Array(32);

/** Whether the OpenSSL at hand has an algorithm and gives the answer that its specification prints. */
export const passes = {
  /** RFC 7748 §6.1. */
  x25519: (x25519: X25519): boolean =>
    answers(
      () =>
        x25519.sharedSecret(
          hex('77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a'),
          hex('de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f'),
        ),
      '4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742',
    ),

  /** RFC 7693 appendix B; the HMAC of the same under a key of zeros. */
  blake2s: (blake2s: Omit<Blake2s, 'mac'>): boolean =>
    answers(
      () => blake2s.hash(abc),
      '508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982',
    ) &&
    answers(
      () => blake2s.hmac(zeros, abc),
      '4a79a31b10a8c34b7c89735b8088e6b810b4bad4f36d671b65ca2ea0914952bf',
    ),

  /** Under a key and a nonce of zeros. */
  chacha20poly1305: (aead: Aead): boolean =>
    answers(
      () => aead.seal(zeros, zeros.subarray(20), abc, abc),
      'fe65844ab4ae6c91ec5f04fb5be4efe6672b68',
    ),

  /** RFC 8032 §7.1, test 1. */
  ed25519: (ed25519: Ed25519): boolean =>
    answers(
      () =>
        ed25519.sign(
          hex('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60'),
          nothing,
        ),
      'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
    ),

  /** FIPS 180-4, the example of NIST. */
  sha256: (sha256: Crypto['sha256']): boolean =>
    answers(() => sha256(abc), 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'),

  /** RFC 4231 §4.3. */
  hmacSha256: (hmacSha256: Crypto['hmacSha256']): boolean =>
    answers(
      () => hmacSha256(jefe, question),
      '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
    ),

  /** RFC 2202 §3, test 2. */
  hmacSha1: (hmacSha1: Crypto['hmacSha1']): boolean =>
    answers(() => hmacSha1(jefe, question), 'effcdf6ae5eb2fa2d27416d5f184df9c259a7c79'),

  /** RFC 1321 appendix A.5. */
  md5: (md5: Crypto['md5']): boolean => answers(() => md5(abc), '900150983cd24fb0d6963f7d28e17f72'),
};

const jefe = encodeUtf8('Jefe');
const question = encodeUtf8('what do ya want for nothing?');

function answers(compute: () => Uint8Array | undefined, expected: string): boolean {
  try {
    return equalInConstantTime(compute() ?? nothing, hex(expected));
  } catch {
    return false; // this OpenSSL lacks it
  }
}

function hex(text: string): Uint8Array {
  return decodeHex(text) ?? nothing;
}
