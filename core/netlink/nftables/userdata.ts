import { HOST_IS_LITTLE_ENDIAN } from '../byte-order.ts';
import { decodeUtf8, encodeUtf8 } from '../../sansio/utf8.ts';

/** One entry of nft's user data: type, length and value take a byte, a byte, and up to 255 bytes. */
export interface UserdataEntry {
  readonly type: number;
  readonly value: Uint8Array;
}

/** Longer comments are cut: the kernel takes 256 bytes of user data, and nft 128 of a comment. */
const MOST_COMMENT_BYTES = 127;

export function encodeUserdata(entries: readonly UserdataEntry[]): Uint8Array {
  const bytes = new Uint8Array(entries.reduce((sum, { value }) => sum + 2 + value.length, 0));
  let at = 0;
  for (const { type, value } of entries) {
    bytes[at] = type;
    bytes[at + 1] = value.length;
    bytes.set(value, at + 2);
    at += 2 + value.length;
  }
  return bytes;
}

/** Reads what is whole. */
export function decodeUserdata(bytes: Uint8Array): readonly UserdataEntry[] {
  const entries: UserdataEntry[] = [];
  for (let at = 0; at + 2 <= bytes.length;) {
    const end = at + 2 + (bytes[at + 1] ?? 0);
    if (end > bytes.length) break;
    entries.push({ type: bytes[at] ?? 0, value: bytes.subarray(at + 2, end) });
    at = end;
  }
  return entries;
}

export function commentEntry(type: number, comment: string): UserdataEntry {
  return { type, value: encodeUtf8(`${clipComment(comment, MOST_COMMENT_BYTES)}\0`) };
}

/** Returns the comment, cut so that it takes at most `most` bytes. */
export function clipComment(comment: string, most: number): string {
  let clipped = comment.slice(0, most);
  while (encodeUtf8(clipped).length > most) clipped = clipped.slice(0, -1);
  return clipped;
}

export function numberEntry(type: number, number: number): UserdataEntry {
  const value = new Uint8Array(4);
  new DataView(value.buffer).setUint32(0, number, HOST_IS_LITTLE_ENDIAN);
  return { type, value };
}

export function readComment(userdata: Uint8Array, type: number): string | undefined {
  const entry = decodeUserdata(userdata).find((candidate) => candidate.type === type);
  if (entry === undefined) return undefined;
  const { value } = entry;
  return decodeUtf8(value.at(-1) === 0 ? value.subarray(0, -1) : value);
}
