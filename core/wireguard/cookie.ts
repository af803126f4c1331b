import { ipAddressBytes } from '../net/ip-address.ts';
import { socketAddressIp, socketAddressPort, type SocketAddress } from '../net/socket-address.ts';
import { equalInConstantTime, type Crypto } from '../sansio/crypto.ts';
import { after, elapsed, type Instant } from '../sansio/instant.ts';
import { randomBytes, type Random } from '../sansio/random.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import {
  COOKIE_LATENCY,
  COOKIE_NONCE_LENGTH,
  COOKIE_REFRESH_TIME,
  KEY_LENGTH,
} from './constants.ts';
import { encodeCookieReply, macsOf, type CookieReply } from './messages.ts';

/**
 * Checks the MACs of the handshake messages that we receive, and makes cookies (whitepaper §5.4.4,
 * §5.4.7): mac1 proves that the sender knows our public key, mac2 that it gets what is sent to its
 * address.
 */
export class CookieChecker {
  readonly #crypto: Crypto;
  readonly #random: Random;
  readonly #mac1Key: Uint8Array;
  readonly #cookieKey: Uint8Array;
  #secret: Uint8Array | undefined;
  #secretExpiresAt: Instant | undefined;

  constructor(crypto: Crypto, random: Random, ownPublicKey: Uint8Array) {
    this.#crypto = crypto;
    this.#random = random;
    this.#mac1Key = crypto.blake2s.hash(LABEL_MAC1, ownPublicKey);
    this.#cookieKey = crypto.blake2s.hash(LABEL_COOKIE, ownPublicKey);
  }

  hasValidMac1(datagram: Uint8Array): boolean {
    const { mac1, beforeMac1 } = macsOf(datagram);
    return equalInConstantTime(mac1, this.#crypto.blake2s.mac(this.#mac1Key, beforeMac1));
  }

  hasValidMac2(datagram: Uint8Array, from: SocketAddress, now: Instant): boolean {
    const { mac2, beforeMac2 } = macsOf(datagram);
    const cookie = this.#cookieFor(from, now);
    return equalInConstantTime(mac2, this.#crypto.blake2s.mac(cookie, beforeMac2));
  }

  /** Makes the answer to a handshake message: a cookie that only its sender can open. */
  reply(datagram: Uint8Array, sender: number, from: SocketAddress, now: Instant): Uint8Array {
    const nonce = randomBytes(this.#random, COOKIE_NONCE_LENGTH);
    const cookie = this.#cookieFor(from, now);
    const { mac1 } = macsOf(datagram);
    const aead = this.#crypto.xchacha20poly1305;
    const sealedCookie = aead.seal(this.#cookieKey, nonce, cookie, mac1);
    return encodeCookieReply({ receiver: sender, nonce, sealedCookie });
  }

  #cookieFor(from: SocketAddress, now: Instant): Uint8Array {
    if (this.#secretExpiresAt === undefined || now >= this.#secretExpiresAt) {
      this.#secret = randomBytes(this.#random, KEY_LENGTH);
      this.#secretExpiresAt = after(now, COOKIE_REFRESH_TIME);
    }
    const port = socketAddressPort(from);
    const address = ipAddressBytes(socketAddressIp(from));
    return this.#crypto.blake2s.mac(
      this.#secret ?? EMPTY,
      address,
      Uint8Array.of(port >> 8, port & 0xff),
    );
  }
}

/**
 * Writes the MACs of the handshake messages that we send to one peer, and keeps its cookie. The keys are
 * derived at each use, which costs less than to keep those of a thousand idle peers.
 */
export class CookieJar {
  readonly #crypto: Crypto;
  readonly #remotePublicKey: Uint8Array;
  #cookie: { readonly value: Uint8Array; readonly receivedAt: Instant } | undefined;
  /** The message that a cookie reply can answer; each is answered once. */
  #lastSent: { readonly sender: number; readonly mac1: Uint8Array } | undefined;

  constructor(crypto: Crypto, remotePublicKey: Uint8Array) {
    this.#crypto = crypto;
    this.#remotePublicKey = remotePublicKey;
  }

  /** Writes mac1, and mac2 while there is a fresh cookie, into an encoded message. */
  stamp(datagram: Uint8Array, sender: number, now: Instant): void {
    const { blake2s } = this.#crypto;
    const { mac1, mac2, beforeMac1, beforeMac2 } = macsOf(datagram);
    mac1.set(blake2s.mac(blake2s.hash(LABEL_MAC1, this.#remotePublicKey), beforeMac1));
    this.#lastSent = { sender, mac1: mac1.slice() };
    const cookie = this.#cookie;
    if (cookie === undefined) return;
    if (elapsed(cookie.receivedAt, now) < COOKIE_REFRESH_TIME - COOKIE_LATENCY) {
      mac2.set(blake2s.mac(cookie.value, beforeMac2));
    } else {
      this.#cookie = undefined;
    }
  }

  /** Keeps the cookie for the next message; returns whether the reply is authentic. */
  handleReply(reply: CookieReply, now: Instant): boolean {
    if (this.#lastSent === undefined || reply.receiver !== this.#lastSent.sender) return false;
    const { blake2s, xchacha20poly1305 } = this.#crypto;
    const key = blake2s.hash(LABEL_COOKIE, this.#remotePublicKey);
    const { mac1 } = this.#lastSent;
    const value = xchacha20poly1305.open(key, reply.nonce, reply.sealedCookie, mac1);
    if (value === undefined) return false;
    this.#cookie = { value, receivedAt: now };
    this.#lastSent = undefined;
    return true;
  }
}

const LABEL_MAC1 = encodeUtf8('mac1----');
const LABEL_COOKIE = encodeUtf8('cookie--');
const EMPTY = new Uint8Array(0);
