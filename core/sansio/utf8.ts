/** Returns the text in UTF-8 (RFC 3629); a lone surrogate becomes U+FFFD. */
export function encodeUtf8(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length * 3);
  let length = 0;
  for (let i = 0; i < text.length; i++) {
    let point = text.codePointAt(i) ?? REPLACEMENT;
    if (point > 0xffff) i++;
    else if (isSurrogate(point)) point = REPLACEMENT;

    if (point < 0x80) {
      bytes[length++] = point;
      continue;
    }
    if (point < 0x800) bytes[length++] = 0xc0 | (point >> 6);
    else {
      if (point < 0x1_0000) bytes[length++] = 0xe0 | (point >> 12);
      else {
        bytes[length++] = 0xf0 | (point >> 18);
        bytes[length++] = 0x80 | ((point >> 12) & 0x3f);
      }
      bytes[length++] = 0x80 | ((point >> 6) & 0x3f);
    }
    bytes[length++] = 0x80 | (point & 0x3f);
  }
  return bytes.slice(0, length);
}

/**
 * Returns the text, or `undefined` when the bytes are not well-formed UTF-8 (RFC 3629 §4): overlong
 * forms, surrogates, points above U+10FFFF and cut-off sequences are refused. A byte order mark stays.
 */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  let text = '';
  let units: number[] = [];
  for (let i = 0; i < bytes.length;) {
    const lead = bytes[i++] ?? 0;
    let point = lead;
    if (lead >= 0x80) {
      const following = lead < 0xc2 || lead > 0xf4 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
      if (following === 0) return undefined;
      point = lead & (0x3f >> following);
      for (let n = 0; n < following; n++) {
        const byte = bytes[i++] ?? 0;
        if ((byte & 0xc0) !== 0x80) return undefined;
        point = (point << 6) | (byte & 0x3f);
      }
      const isOverlong =
        (following === 2 && point < 0x800) || (following === 3 && point < 0x1_0000);
      if (isOverlong || isSurrogate(point) || point > 0x10_ffff) return undefined;
    }
    if (point < 0x1_0000) units.push(point);
    else units.push(0xd800 + ((point - 0x1_0000) >> 10), 0xdc00 + ((point - 0x1_0000) & 0x3ff));
    if (units.length >= CHUNK) {
      text += String.fromCharCode(...units);
      units = [];
    }
  }
  return text + String.fromCharCode(...units);
}

const REPLACEMENT = 0xfffd;
/** Code units turned into text at a time: each of them is an argument on the stack. */
const CHUNK = 4096;

function isSurrogate(point: number): boolean {
  return point >= 0xd800 && point <= 0xdfff;
}
