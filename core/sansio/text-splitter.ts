import { failed, ok, type Outcome } from './outcome.ts';

/** Cuts a stream of text into messages that end with a separator, in time linear in the text. */
export class TextSplitter {
  readonly #separator: string;
  readonly #limit: number;
  #pieces: string[] = [];
  #length = 0;

  /** A message may have `limit` characters. */
  constructor(separator: string, limit: number) {
    this.#separator = separator;
    this.#limit = limit;
  }

  /**
   * Takes the next piece and returns the messages that it completes, without their separators. A message
   * above the limit fails the stream: it must not be continued.
   */
  push(piece: string): Outcome<readonly string[], 'too-large'> {
    // A separator that is complete may have begun in earlier pieces, which need not be joined to see it.
    const reach = this.#separator.length - 1;
    const tail = this.#lastCharacters(reach);
    this.#pieces.push(piece);
    this.#length += piece.length;
    let messages: string[] = [];
    if ((tail + piece).includes(this.#separator)) {
      messages = this.#pieces.join('').split(this.#separator);
      const rest = messages.pop() ?? '';
      this.#pieces = [rest];
      this.#length = rest.length;
    }
    const isTooLarge =
      this.#length > this.#limit || messages.some((message) => message.length > this.#limit);
    return isTooLarge ? failed('too-large') : ok(messages);
  }

  #lastCharacters(count: number): string {
    let tail = '';
    for (let i = this.#pieces.length - 1; i >= 0 && tail.length < count; i--) {
      tail = (this.#pieces[i] ?? '').slice(-count) + tail;
    }
    return tail.slice(Math.max(0, tail.length - count));
  }
}
