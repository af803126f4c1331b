import type { Millis } from '../sansio/instant.ts';
import type { TransportCipher } from './cipher.ts';
import { failedKnownAnswer } from './known-answer.ts';
import {
  KEY_SIZE,
  MESSAGE_COUNTER_HIGH,
  MESSAGE_COUNTER_LOW,
  MESSAGE_HEADER_SIZE,
  MESSAGE_KEY,
  MESSAGE_LENGTH,
  MESSAGE_OFFSET,
  MESSAGE_SIZE,
  OUT,
  TAG_SIZE,
} from './layout.ts';

/** A cipher, or why this machine lacks it. */
export type CipherCandidate = TransportCipher | MissingCipher;

export interface MissingCipher {
  readonly name: string;
  readonly skip: string;
}

/** What became of a candidate: how fast it is, or why it was not taken into account. */
export type CipherTrial =
  { readonly name: string; readonly packetsPerSecond: number } | MissingCipher;

export interface CipherChoice {
  /** `undefined` where no candidate passes. */
  readonly cipher: TransportCipher | undefined;
  /** One of each candidate, in their order. */
  readonly trials: readonly CipherTrial[];
}

/** For all candidates; what is left of 10 ms is for the one that begins last. */
const BUDGET: Millis = 8;
/** For one candidate, beside its self-test. */
const TURN: Millis = 2;
/** Of the packets that are sealed and opened: the payload of a full one. */
const PAYLOAD_LENGTH = 1420;
const MOST_PACKETS = 64;
/** Ends a turn even if the clock does not tick. */
const MOST_ROUNDS = 256;

/**
 * Returns the fastest of the candidates that give a known answer. They come in the order in which they
 * are expected: once one has passed, those that the time does not suffice for are left out. Overwrites
 * what lies at OUT in the arena. `clock` is read around everything that is measured.
 */
export function chooseCipher(
  candidates: readonly CipherCandidate[],
  arena: ArrayBuffer,
  clock: () => Millis,
): CipherChoice {
  const end = clock() + BUDGET;
  const trials: CipherTrial[] = [];
  let cipher: TransportCipher | undefined;
  let fastest = 0;
  for (const candidate of candidates) {
    const isLate = cipher !== undefined && clock() + TURN > end;
    const trial = isLate ? tooLate(candidate) : tryOut(candidate, arena, clock);
    trials.push(trial);
    if ('skip' in trial || 'skip' in candidate) continue;
    if (cipher !== undefined && trial.packetsPerSecond <= fastest) continue;
    cipher = candidate;
    fastest = trial.packetsPerSecond;
  }
  return { cipher, trials };
}

function tooLate(candidate: CipherCandidate): CipherTrial {
  return 'skip' in candidate
    ? candidate
    : { name: candidate.name, skip: 'there was no time to try it' };
}

function tryOut(candidate: CipherCandidate, arena: ArrayBuffer, clock: () => Millis): CipherTrial {
  if ('skip' in candidate) return candidate;
  const { name } = candidate;
  const skip = failedKnownAnswer(candidate, arena);
  if (skip !== undefined) return { name, skip };
  return { name, packetsPerSecond: Math.round(measure(candidate, arena, clock)) };
}

/**
 * Returns the packets that a cipher seals or opens in a second, in the best of a few batches: the first
 * ones let the engine compile, and others are disturbed. A slow one starts, and may end, with less than
 * a full batch.
 */
function measure(cipher: TransportCipher, arena: ArrayBuffer, clock: () => Millis): number {
  placeMessages(arena);
  const end = clock() + TURN;
  let best = 0;
  let count = 1;
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const start = clock();
    cipher.seal(RECORDS, count);
    cipher.open(RECORDS, count);
    const now = clock();
    if (now > start) best = Math.max(best, (2 * count * 1000) / (now - start));
    if (now >= end) break;
    count = Math.min(count * 2, MOST_PACKETS);
  }
  return best;
}

function placeMessages(arena: ArrayBuffer): void {
  for (let i = 0; i < MOST_PACKETS; i++) {
    const record = new DataView(arena, RECORDS + i * MESSAGE_SIZE, MESSAGE_SIZE);
    record.setUint32(MESSAGE_OFFSET, MESSAGES + i * PITCH, true);
    record.setUint32(MESSAGE_LENGTH, PAYLOAD_LENGTH, true);
    record.setUint32(MESSAGE_COUNTER_LOW, i, true);
    record.setUint32(MESSAGE_COUNTER_HIGH, 0, true);
    record.setUint32(MESSAGE_KEY, KEY, true);
  }
}

const RECORDS = OUT;
const KEY = RECORDS + MOST_PACKETS * MESSAGE_SIZE;
const MESSAGES = KEY + KEY_SIZE;
/** From one message to the next, each aligned as the packet path aligns them. */
const PITCH = (MESSAGE_HEADER_SIZE + PAYLOAD_LENGTH + TAG_SIZE + 15) & ~15;
