import { MessageFlag, MessageType } from './constants.ts';
import {
  readAcknowledgement,
  readMessages,
  type Acknowledgement,
  type NetlinkMessage,
} from './message.ts';

export type TransactionState =
  | { readonly type: 'open' }
  /** `isInterrupted`: the table changed during the dump, so that it should be repeated. */
  | { readonly type: 'done'; readonly isInterrupted: boolean }
  | { readonly type: 'refused'; readonly why: Acknowledgement };

/**
 * The kernel's answer to one request that asked for an acknowledgement or a dump: feed it datagrams until
 * it is no longer open. Messages of other requests are passed over.
 */
export class Transaction {
  state: TransactionState = { type: 'open' };
  /** Datagrams that did not end where their last message does. */
  malformed = 0;
  readonly #sequence: number;
  readonly #onMessage: (message: NetlinkMessage) => void;
  #isInterrupted = false;

  /** `onMessage` gets each message that carries an object; its body is borrowed for the call. */
  constructor(sequence: number, onMessage: (message: NetlinkMessage) => void) {
    this.#sequence = sequence;
    this.#onMessage = onMessage;
  }

  handleDatagram(datagram: Uint8Array): void {
    const { messages, isWhole } = readMessages(datagram);
    if (!isWhole) this.malformed++;
    for (const message of messages) {
      if (this.state.type !== 'open') return;
      if (message.sequence === this.#sequence) this.#handleMessage(message);
    }
  }

  #handleMessage(message: NetlinkMessage): void {
    if ((message.flags & MessageFlag.dumpInterrupted) !== 0) this.#isInterrupted = true;
    if (message.type === MessageType.noop) return;
    if (message.type !== MessageType.error && message.type !== MessageType.done) {
      this.#onMessage(message);
      return;
    }
    const why = readAcknowledgement(message);
    if (why === undefined) this.malformed++;
    else if (why.errno !== 0) this.state = { type: 'refused', why };
    else this.state = { type: 'done', isInterrupted: this.#isInterrupted };
  }
}
