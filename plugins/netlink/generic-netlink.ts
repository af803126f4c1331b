import { NETLINK_GENERIC } from '../../core/netlink/constants.ts';
import {
  decodeGenericFamily,
  encodeGenericFamilyQuery,
  type GenericFamily,
} from '../../core/netlink/genetlink/controller.ts';
import type { NetlinkMessage } from '../../core/netlink/message.ts';
import type { Native } from '../../core/plugin/native.ts';
import { ownRefusal, type Answer, type Refusal } from './refusal.ts';
import { RequestSocket } from './request-socket.ts';

/**
 * Requests to one family of generic netlink. Its number is asked for when it is needed, since the module
 * may be loaded later, and again when the kernel does not know it any more.
 */
export class GenericNetlink {
  readonly #socket: RequestSocket;
  readonly #name: string;
  #family: GenericFamily | undefined;

  static open(native: Native, family: string): Answer<GenericNetlink> {
    const socket = RequestSocket.open(native, NETLINK_GENERIC);
    return socket.ok ? { ok: true, value: new GenericNetlink(socket.value, family) } : socket;
  }

  constructor(socket: RequestSocket, family: string) {
    this.#socket = socket;
    this.#name = family;
  }

  get stats(): Readonly<RequestSocket['stats']> {
    return this.#socket.stats;
  }

  /** Sends a request that asks for an acknowledgement. Refused with ENOENT where there is no such family. */
  request(encode: (family: GenericFamily) => Uint8Array): Refusal | undefined {
    const sent = this.#withFamily((family): Answer<undefined> => {
      const refusal = this.#socket.request(encode(family));
      return refusal === undefined ? { ok: true, value: undefined } : { ok: false, refusal };
    });
    return sent.ok ? undefined : sent.refusal;
  }

  /** Sends a request for a dump, as `RequestSocket.dump` does. */
  dump<Item>(
    encode: (family: GenericFamily) => Uint8Array,
    decode: (message: NetlinkMessage, family: GenericFamily) => Item | undefined,
  ): Answer<readonly Item[]> {
    return this.#withFamily((family) =>
      this.#socket.dump(encode(family), (message) => decode(message, family)),
    );
  }

  close(): void {
    this.#socket.close();
  }

  #withFamily<Value>(send: (family: GenericFamily) => Answer<Value>): Answer<Value> {
    const known = this.#family;
    if (known !== undefined) {
      const answer = send(known);
      // Also the answer to a number that belongs to nobody.
      if (answer.ok || answer.refusal.code !== 'ENOENT') return answer;
    }
    const resolved = this.#resolve();
    return resolved.ok ? send(resolved.value) : resolved;
  }

  #resolve(): Answer<GenericFamily> {
    this.#family = undefined;
    const refusal = this.#socket.request(encodeGenericFamilyQuery(this.#name), (message) => {
      this.#family = decodeGenericFamily(message);
    });
    if (refusal !== undefined) return { ok: false, refusal };
    const family: GenericFamily | undefined = this.#family;
    if (family !== undefined) return { ok: true, value: family };
    return { ok: false, refusal: ownRefusal('EBADMSG', 'the kernel answered without a family') };
  }
}
