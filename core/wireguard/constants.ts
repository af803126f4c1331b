import type { Millis } from '../sansio/instant.ts';

/* Specification constants (whitepaper §6.1) ----------------------------------------------------- */

/** Messages after which a session is replaced, whoever initiated it. */
export const REKEY_AFTER_MESSAGES: number = 2 ** 60;
/** Messages after which a session is not used any more. */
export const REJECT_AFTER_MESSAGES: bigint = 2n ** 64n - 2n ** 13n - 1n;
/** Age at which the initiator of a session replaces it when it sends. */
export const REKEY_AFTER_TIME: Millis = 120_000;
/** Age at which a session is not used any more. */
export const REJECT_AFTER_TIME: Millis = 180_000;
/** How long unanswered initiations are repeated; this is for peers with a given endpoint. */
export const REKEY_ATTEMPT_TIME: Millis = 90_000;
/** Time between two initiations. */
export const REKEY_TIMEOUT: Millis = 5_000;
/** Silence after received data that an empty message ends. */
export const KEEPALIVE_TIMEOUT: Millis = 10_000;
/** Life of the secret behind our cookies, and of a cookie that we got (§5.4.7). */
export const COOKIE_REFRESH_TIME: Millis = 120_000;

export const KEY_LENGTH = 32;
export const TAG_LENGTH = 16;
export const MAC_LENGTH = 16;
export const COOKIE_LENGTH = 16;
export const COOKIE_NONCE_LENGTH = 24;
export const TIMESTAMP_LENGTH = 12;

/** Lengths of the messages (§5.4.2 to §5.4.7); a transport message has this length or more. */
export const INITIATION_LENGTH = 148;
export const RESPONSE_LENGTH = 92;
export const COOKIE_REPLY_LENGTH = 64;
export const SMALLEST_TRANSPORT_LENGTH = 32;

/* Implementation constants ---------------------------------------------------------------------- */

/** Peers of one private key; the upper 24 bits of a receiver index could name more. */
export const MOST_PEERS = 4096;
/** Sessions that one peer can have at once. Divides 256, so that the low bits of an index are its slot. */
export const SESSION_SLOTS = 4;

/**
 * REKEY_ATTEMPT_TIME of peers whose path ICE finds. The attempt begins when ICE nominates a pair, so the
 * path has just been checked: silence soon means that the peer is gone, or has other keys. More than the
 * time after which ICE gives a path up, so that a path that broke is not taken for keys that differ.
 */
export const ICE_REKEY_ATTEMPT_TIME: Millis = 15_000;

/**
 * REKEY_TIMEOUT of such peers. With 5 s an attempt has three initiations, and where a fifth of the
 * datagrams is lost in each direction one attempt in twenty fails. Both sides are ours, and a check that
 * was just answered says that there is somebody to hear them.
 */
export const ICE_REKEY_TIMEOUT: Millis = 1_000;

/** Upper end of the random delay that keeps two peers from initiating in step. */
export const REKEY_TIMEOUT_JITTER: Millis = 333;
/** Age at which received data makes the initiator replace a session that it does not send with. */
export const REKEY_ON_RECEIVE_AFTER_TIME: Millis =
  REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT;
/** A cookie is given up this much earlier than its maker does: the way there takes time. */
export const COOKIE_LATENCY: Millis = 5_000;

/** Initiations that one peer may send; it also sets the grain of our timestamps. */
export const INITIATIONS_PER_SECOND = 50;
export const INITIATION_SPACING: Millis = 1000 / INITIATIONS_PER_SECOND;
/** Handshake messages, from everybody together, above which we ask for cookies. */
export const HANDSHAKES_PER_SECOND_UNDER_LOAD = 100;
/** How long that state lasts after the last excess. */
export const UNDER_LOAD_TIME: Millis = 1_000;
/** Handshake messages that one source with a valid cookie may send while we are under load. */
export const SOURCE_HANDSHAKES_PER_SECOND = 20;
export const SOURCE_HANDSHAKES_BURST = 5;
/** Sources that are counted at once; beyond that, further ones are refused. */
export const MOST_SOURCES = 1024;

/** Messages that wait for the driver; the oldest is dropped, its sender's timer repeats it. */
export const MOST_QUEUED_TRANSMITS: number = 2 * MOST_PEERS;

/** Bits of the replay window; 64 of them are a reserve that is being cleared (RFC 6479). */
export const REPLAY_WINDOW_BITS = 8192;
export const REPLAY_WINDOW: number = REPLAY_WINDOW_BITS - 64;
