import { readUint16, writeUint16 } from '../packet/big-endian.ts';
import { BugError } from '../sansio/outcome.ts';

/*
 * ChannelData (RFC 8656 §12.4): { channel u16, length u16, data[length] }, padded to a multiple of 4
 * bytes on a stream (§12.5). The length does not count the padding.
 */

/** RFC 8656 §12. Those up to 0x7FFF are reserved. */
export const FIRST_CHANNEL = 0x4000;
export const LAST_CHANNEL = 0x4fff;

export const CHANNEL_HEADER_LENGTH = 4;

/** Lends the data of the message it was decoded from. */
export interface ChannelData {
  readonly channel: number;
  readonly payload: Uint8Array;
}

/** Whether a datagram that comes from a relay is ChannelData by its first byte (RFC 8656 §12). */
export function isChannelData(datagram: Uint8Array): boolean {
  return ((datagram[0] ?? 0) & 0xf0) === FIRST_CHANNEL >> 8;
}

/** The payload has up to 65535 bytes and is copied. */
export function encodeChannelData(
  { channel, payload }: ChannelData,
  transport: 'udp' | 'stream',
): Uint8Array {
  if (payload.length > 0xffff) throw new BugError(`channel data of ${payload.length} bytes`);
  const length = CHANNEL_HEADER_LENGTH + payload.length;
  const message = new Uint8Array(transport === 'stream' ? paddedLength(length) : length);
  writeUint16(message, 0, channel);
  writeUint16(message, 2, payload.length);
  message.set(payload, CHANNEL_HEADER_LENGTH);
  return message;
}

/** Returns what a datagram or frame carries; bytes behind it are padding (§12.6). */
export function decodeChannelData(message: Uint8Array): ChannelData | undefined {
  if (message.length < CHANNEL_HEADER_LENGTH || !isChannelData(message)) return undefined;
  const end = CHANNEL_HEADER_LENGTH + readUint16(message, 2);
  if (end > message.length) return undefined;
  const payload = message.subarray(CHANNEL_HEADER_LENGTH, end);
  return { channel: readUint16(message, 0), payload };
}

/** The next multiple of 4. */
export function paddedLength(length: number): number {
  return (length + 3) & ~3;
}
