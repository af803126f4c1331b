import { MessageFlag } from '../constants.ts';
import type { MessageWriter } from '../message-writer.ts';
import type { NetlinkMessage } from '../message.ts';

/** What all messages of NETLINK_GENERIC share (linux/genetlink.h). Integers are host-endian. */

/** Bytes of struct genlmsghdr: command, version, reserved. */
export const GENERIC_HEADER = 4;

export interface GenericMessage {
  /** Number of the command within its family. */
  readonly command: number;
  /** Borrowed from the datagram. */
  readonly attributes: Uint8Array;
}

/** Starts a request to a family; `flags` without REQUEST. */
export function beginGeneric(
  writer: MessageWriter,
  family: { readonly id: number; readonly version: number },
  command: number,
  flags: number,
): MessageWriter {
  writer.begin(family.id, MessageFlag.request | flags);
  const header = writer.fixed(GENERIC_HEADER);
  header.setUint8(0, command);
  header.setUint8(1, family.version);
  return writer;
}

/** Reads the header; `undefined` when the message is of another family or too short. */
export function readGeneric(
  message: Pick<NetlinkMessage, 'type' | 'body'>,
  family: number,
): GenericMessage | undefined {
  const { type, body } = message;
  if (type !== family || body.length < GENERIC_HEADER) return undefined;
  return { command: body[0] ?? 0, attributes: body.subarray(GENERIC_HEADER) };
}
