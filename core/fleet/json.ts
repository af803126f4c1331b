import { decodeUtf8 } from '../sansio/utf8.ts';

/** Returns the value that the bytes are JSON of (RFC 8259, UTF-8), or `undefined`. */
export function parseJson(bytes: Uint8Array): unknown {
  const text = decodeUtf8(bytes);
  return text === undefined ? undefined : parseJsonText(text);
}

export function parseJsonText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's only way to say no.
    return undefined;
  }
}
