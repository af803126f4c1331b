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

/**
 * Each candidate has two turns, so that engines that compile hot code in the background have the time
 * to do so. These say how long after the start a first and a second turn may begin; the last one takes
 * what is left of 10 ms.
 */
const FIRST_TURNS: Millis = 3;
const SECOND_TURNS: Millis = 8;
const TURN: Millis = 0.75;
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
  const start = clock();
  const runners: Runner[] = [];
  const results = candidates.map((candidate): Runner | MissingCipher => {
    if ('skip' in candidate) return candidate;
    const { name } = candidate;
    const isLate = runners.length > 0 && clock() > start + FIRST_TURNS;
    const skip = isLate ? 'there was no time to try it' : failedKnownAnswer(candidate, arena);
    if (skip !== undefined) return { name, skip };
    const runner = { cipher: candidate, packetsPerSecond: measure(candidate, arena, clock) };
    runners.push(runner);
    return runner;
  });
  for (const runner of runners) {
    if (clock() > start + SECOND_TURNS) break;
    const again = measure(runner.cipher, arena, clock);
    runner.packetsPerSecond = Math.max(runner.packetsPerSecond, again);
  }
  return { cipher: fastestOf(runners)?.cipher, trials: results.map(trialOf) };
}

/** A candidate that passed. */
interface Runner {
  readonly cipher: TransportCipher;
  packetsPerSecond: number;
}

/** The first one of those that are equally fast. */
function fastestOf(runners: readonly Runner[]): Runner | undefined {
  let fastest: Runner | undefined;
  for (const runner of runners) {
    if (fastest === undefined || runner.packetsPerSecond > fastest.packetsPerSecond) {
      fastest = runner;
    }
  }
  return fastest;
}

function trialOf(result: Runner | MissingCipher): CipherTrial {
  if ('skip' in result) return result;
  return { name: result.cipher.name, packetsPerSecond: result.packetsPerSecond };
}

/**
 * Returns the packets that a cipher seals or opens in a second, in the best of the batches of a turn.
 * Batches begin small, so that a slow one does not take much longer than its turn.
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
  return Math.round(best);
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
