import { MessageType } from './constants.ts';
import { readAcknowledgement, readMessages, type Acknowledgement } from './message.ts';

/**
 * The kernel's answers to the requests of one datagram (`joinRequests`): feed it datagrams until it is no
 * longer open, which the answer to the last request ends. Messages of other requests are passed over.
 */
export class Batch {
  /** Why each request was refused; `undefined` where it was not. */
  readonly refusals: (Acknowledgement | undefined)[];
  isOpen = true;
  /** Datagrams that did not end where their last message does, and answers without an errno. */
  malformed = 0;
  readonly #first: number;

  constructor(first: number, count: number) {
    this.#first = first;
    this.refusals = Array.from({ length: count }, () => undefined);
  }

  handleDatagram(datagram: Uint8Array): void {
    const { messages, isWhole } = readMessages(datagram);
    if (!isWhole) this.malformed++;
    for (const message of messages) {
      const index = message.sequence - this.#first;
      if (index < 0 || index >= this.refusals.length || message.type !== MessageType.error)
        continue;
      const answer = readAcknowledgement(message);
      if (answer === undefined) {
        this.malformed++;
        continue;
      }
      if (answer.errno !== 0) this.refusals[index] = answer;
      if (index === this.refusals.length - 1) this.isOpen = false;
    }
  }
}
