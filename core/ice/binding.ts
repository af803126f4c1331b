import type { SocketAddress } from '../net/socket-address.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import { encodeStun, type ReceivedStun, type StunAttributes } from '../stun/message.ts';
import type { IceRole } from './role.ts';

export interface IceCredentials {
  readonly usernameFragment: string;
  readonly password: string;
}

/** Whose messages are whose, and what proves it. */
export interface BindingContext {
  readonly local: IceCredentials;
  readonly remote: IceCredentials;
  readonly crypto: Pick<Crypto, 'hmacSha1'>;
}

/** Encodes a check (RFC 8445 §7.1.1, §7.2.2), under the password of the peer. */
export function encodeCheck(
  check: {
    readonly transactionId: Uint8Array;
    readonly role: IceRole;
    readonly tieBreaker: Uint8Array;
    /** That of our candidate if the peer learns it from this check. */
    readonly priority: number;
    readonly nominates: boolean;
  },
  context: BindingContext,
): Uint8Array {
  const { local, remote, crypto } = context;
  const { transactionId, tieBreaker, priority } = check;
  const username = `${remote.usernameFragment}:${local.usernameFragment}`;
  const attributes: StunAttributes = {
    username,
    priority,
    ...(check.role === 'controlling'
      ? { iceControlling: tieBreaker }
      : { iceControlled: tieBreaker }),
    ...(check.nominates ? { useCandidate: true } : {}),
  };
  return encodeStun(
    { class: 'request', method: 'binding', transactionId, attributes },
    { integrityKey: encodeUtf8(remote.password), crypto },
  );
}

/** Encodes our answer to a check, under our own password. */
export function encodeAnswer(
  request: ReceivedStun,
  answer:
    | { readonly class: 'success'; readonly from: SocketAddress }
    | { readonly class: 'error'; readonly code: number; readonly unknown?: readonly number[] },
  context: BindingContext,
): Uint8Array {
  const { transactionId, method } = request;
  const attributes: StunAttributes =
    answer.class === 'success'
      ? { xorMappedAddress: answer.from }
      : {
          errorCode: { code: answer.code, reason: '' },
          ...(answer.unknown === undefined ? {} : { unknownAttributes: answer.unknown }),
        };
  return encodeStun(
    { class: answer.class, method, transactionId, attributes },
    { integrityKey: encodeUtf8(context.local.password), crypto: context.crypto },
  );
}

/** Whether a request is for us, from the peer (RFC 8445 §7.3, RFC 8489 §9.1.3). */
export function isAuthenticRequest(message: ReceivedStun, context: BindingContext): boolean {
  const { local, remote, crypto } = context;
  const username = `${local.usernameFragment}:${remote.usernameFragment}`;
  return (
    message.attributes.username === username &&
    message.hasValidIntegrity(encodeUtf8(local.password), crypto)
  );
}

/** Whether an answer is the peer's. */
export function isAuthenticAnswer(message: ReceivedStun, context: BindingContext): boolean {
  return message.hasValidIntegrity(encodeUtf8(context.remote.password), context.crypto);
}
