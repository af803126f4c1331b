import {
  REJECT_AFTER_MESSAGES,
  REPLAY_WINDOW,
  REPLAY_WINDOW_BITS,
} from '../../../core/wireguard/constants.ts';

/**
 * Accepts each counter of a session once, also out of order (whitepaper §5.4.6, RFC 6479).
 *
 * This is the oracle for the window in the packet path, which works on rows of the arena. The bits form a ring that is cleared a word at a time as the window moves.
 */
export class ReplayWindow {
  readonly #words = new Uint32Array(WORDS);
  /** The greatest counter accepted so far plus one. */
  #end = 0n;

  /** Returns whether the counter is new, and remembers it. Call it for authentic messages only. */
  accept(counter: bigint): boolean {
    if (counter < 0n || counter >= REJECT_AFTER_MESSAGES) return false;
    if (counter + 1n + BigInt(REPLAY_WINDOW) < this.#end) return false;
    if (counter >= this.#end) this.#moveTo(counter);
    const index = Number((counter / WORD_BITS) % BigInt(WORDS));
    const bit = 1 << Number(counter % WORD_BITS);
    const word = this.#words[index] ?? 0;
    this.#words[index] = word | bit;
    return (word & bit) === 0;
  }

  /** Makes the counter the greatest, and clears the words that the window moves into. */
  #moveTo(counter: bigint): void {
    const last = this.#end === 0n ? -1n : (this.#end - 1n) / WORD_BITS;
    const next = counter / WORD_BITS;
    const entered = Math.min(Number(next - last), WORDS);
    for (let i = 0; i < entered; i++) this.#words[Number((next - BigInt(i)) % BigInt(WORDS))] = 0;
    this.#end = counter + 1n;
  }
}

const WORD_BITS = 32n;
const WORDS = REPLAY_WINDOW_BITS / 32;
