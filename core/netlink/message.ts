import { AttributeReader } from './attribute.ts';
import { aligned, HOST_IS_LITTLE_ENDIAN } from './byte-order.ts';
import { AckAttribute, MESSAGE_HEADER, MessageFlag, MessageType } from './constants.ts';

/** One netlink message; `body` is borrowed from the datagram. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** The socket whose request caused it, 0 for the kernel's own doing. */
  readonly port: number;
  readonly body: Uint8Array;
}

/** What the kernel thinks of a request, from NLMSG_ERROR or NLMSG_DONE. */
export interface Acknowledgement {
  /** A positive errno of this architecture; 0 for success. */
  readonly errno: number;
  /** The kernel's own words. On success it is a warning. */
  readonly message: string | undefined;
  /** Where in the request the offending attribute starts, in bytes. */
  readonly attributeOffset: number | undefined;
}

/**
 * Returns the messages of a datagram in order. A header that does not fit ends the reading: `isWhole` is
 * false then, and what came before stands. There are at most length / 16 of them.
 */
export function readMessages(datagram: Uint8Array): {
  readonly messages: readonly NetlinkMessage[];
  readonly isWhole: boolean;
} {
  const messages: NetlinkMessage[] = [];
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.byteLength);
  for (let at = 0; at < datagram.length;) {
    const left = datagram.length - at;
    const length = left < MESSAGE_HEADER ? 0 : view.getUint32(at, HOST_IS_LITTLE_ENDIAN);
    if (length < MESSAGE_HEADER || length > left) return { messages, isWhole: false };
    messages.push({
      type: view.getUint16(at + 4, HOST_IS_LITTLE_ENDIAN),
      flags: view.getUint16(at + 6, HOST_IS_LITTLE_ENDIAN),
      sequence: view.getUint32(at + 8, HOST_IS_LITTLE_ENDIAN),
      port: view.getUint32(at + 12, HOST_IS_LITTLE_ENDIAN),
      body: datagram.subarray(at + MESSAGE_HEADER, at + length),
    });
    at += aligned(length);
  }
  return { messages, isWhole: true };
}

/** Writes the sequence into the header of a single message. */
export function stampSequence(request: Uint8Array, sequence: number): void {
  new DataView(request.buffer, request.byteOffset).setUint32(8, sequence, HOST_IS_LITTLE_ENDIAN);
}

/**
 * Returns the requests as one datagram, which the kernel works through in order whatever fails. They are
 * numbered upwards from `first`. Only the last asks for an acknowledgement: a refusal comes unasked.
 */
export function joinRequests(requests: readonly Uint8Array[], first: number): Uint8Array {
  const length = requests.reduce((sum, request) => sum + aligned(request.length), 0);
  const datagram = new Uint8Array(length);
  const view = new DataView(datagram.buffer);
  let at = 0;
  requests.forEach((request, i) => {
    datagram.set(request, at);
    const flags = view.getUint16(at + 6, HOST_IS_LITTLE_ENDIAN);
    const isLast = i === requests.length - 1;
    const wanted = isLast ? flags | MessageFlag.ack : flags & ~MessageFlag.ack;
    view.setUint16(at + 6, wanted, HOST_IS_LITTLE_ENDIAN);
    view.setUint32(at + 8, first + i, HOST_IS_LITTLE_ENDIAN);
    at += aligned(request.length);
  });
  return datagram;
}

/** Reads an NLMSG_ERROR or NLMSG_DONE; `undefined` when it is neither or has no error number. */
export function readAcknowledgement(message: NetlinkMessage): Acknowledgement | undefined {
  const { body, flags, type } = message;
  if (type !== MessageType.error && type !== MessageType.done) return undefined;
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  // A dump that never failed may end in a DONE without a body.
  if (body.length < 4) return type === MessageType.done ? SUCCESS : undefined;
  const errno = Math.abs(view.getInt32(0, HOST_IS_LITTLE_ENDIAN));

  let explanation: Uint8Array | undefined;
  if ((flags & MessageFlag.ackAttributes) !== 0) {
    explanation = body.subarray(type === MessageType.done ? 4 : 4 + requestLength(view, flags));
  }
  return { errno, ...readExplanation(explanation) };
}

const SUCCESS: Acknowledgement = { errno: 0, message: undefined, attributeOffset: undefined };

/** NLMSG_ERROR repeats the request: its header alone where the acknowledgement is capped. */
function requestLength(view: DataView, flags: number): number {
  if ((flags & MessageFlag.capped) !== 0 || view.byteLength < 8) return MESSAGE_HEADER;
  return aligned(Math.min(view.getUint32(4, HOST_IS_LITTLE_ENDIAN), view.byteLength));
}

function readExplanation(bytes: Uint8Array | undefined): Omit<Acknowledgement, 'errno'> {
  let message: string | undefined;
  let attributeOffset: number | undefined;
  const reader = new AttributeReader(bytes ?? new Uint8Array());
  while (reader.next()) {
    if (reader.type === AckAttribute.message) message = reader.text();
    else if (reader.type === AckAttribute.offset) attributeOffset = reader.u32();
  }
  return { message, attributeOffset };
}
