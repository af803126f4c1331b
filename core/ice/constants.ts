import type { Millis } from '../sansio/instant.ts';

// Specification

/** Ta (RFC 8445 §14.2, at least 5 ms): from one check to the next, over all pairs of an agent. */
export const CHECK_PACING: Millis = 20;

// Implementation

/** For how long a pair is tried after it was made, and an agent without a valid pair hopes for one. */
export const ICE_TIMEOUT: Millis = 10_000;

/** RTO (RFC 8489 §6.2.1): to the first repetition of a check; doubled from one to the next. */
export const FIRST_RETRANSMISSION: Millis = 250;
export const RETRANSMISSION_LIMIT: Millis = 1500;

/** For how long the answer to a check is awaited. */
export const TRANSACTION_LIFETIME: Millis = 10_000;

/** A valid pair whose remote candidate was withdrawn lives on until nothing was heard for this long. */
export const WITHDRAWN_LIFETIME: Millis = 10_000;

/** RFC 8445 §6.1.2.5: the lowest of those that need no check any more, or wait for it, are dropped. */
export const PAIR_LIMIT = 100;

/** Those of the highest priority are taken. */
export const REMOTE_CANDIDATE_LIMIT = 64;

/** The oldest gives way to a new one; those with a valid pair are counted for themselves. */
export const PEER_REFLEXIVE_LIMIT = 8;

/** Checks of which the answer is awaited: one for each pair and room for probes. The oldest is dropped. */
export const TRANSACTION_LIMIT = 256;

/** More than one call can cause; the oldest is dropped. */
export const TRANSMIT_LIMIT = 64;
export const EVENT_LIMIT = 512;
