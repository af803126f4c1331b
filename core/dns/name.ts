import { failed, ok, type Outcome } from '../sansio/outcome.ts';

/**
 * A domain name in canonical text: labels joined by dots, without one at the end; the root is `.`.
 * Letters are in lower case (RFC 4343); bytes that are not printable ASCII, and dots and backslashes
 * within a label, are written `\DDD` (RFC 1035 §5.1). So equal names are equal strings, and each dot
 * separates two labels.
 */
export type DomainName = string & { readonly [brand]: true };

declare const brand: unique symbol;

export type NameError =
  'empty-label' | 'label-too-long' | 'name-too-long' | 'bad-escape' | 'not-ascii';

/** RFC 1035 §2.3.4, in bytes; that of a name counts the length of each label and the root. */
const MOST_LABEL_BYTES = 63;
const MOST_NAME_BYTES = 255;

export const ROOT: DomainName = '.' as DomainName;

/** Reads what people write: in any case, with or without the last dot, with `\.` or `\DDD` for odd bytes. */
export function parseDomainName(text: string): Outcome<DomainName, NameError> {
  if (text === ROOT) return ok(ROOT);
  const wire = [0];
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    let byte = text.charCodeAt(i);
    if (byte === DOT) {
      if (wire.length === start + 1) return failed('empty-label');
      if (i === text.length - 1) break;
      start = wire.length;
      wire.push(0);
      continue;
    }
    if (byte > 0x7f) return failed('not-ascii');
    if (byte === BACKSLASH) {
      const [escape, digits] = ESCAPE.exec(text.slice(i, i + 4)) ?? [];
      if (escape === undefined) return failed('bad-escape');
      byte = digits === undefined ? text.charCodeAt(i + 1) : Number(digits);
      i += escape.length - 1;
    }
    if (wire.length - start > MOST_LABEL_BYTES) return failed('label-too-long');
    if (wire.length >= MOST_NAME_BYTES - 1) return failed('name-too-long');
    wire.push(byte);
    wire[start] = wire.length - start - 1;
  }
  if (wire.length === start + 1) return failed('empty-label');
  return ok(readName(Uint8Array.from([...wire, 0]), 0)?.name ?? ROOT);
}

/**
 * Reads a name in a message, which may be compressed (RFC 1035 §4.1.4), and returns it with the offset
 * behind it. `undefined` when it breaks a limit or runs over the end. Each pointer must point before all
 * that was read, so that it ends, and behind the header: a name in the question is never compressed.
 */
export function readName(
  message: Uint8Array,
  offset: number,
): { readonly name: DomainName; readonly end: number } | undefined {
  let text = '';
  let length = 1;
  let at = offset;
  let lowest = offset;
  let end: number | undefined;
  for (;;) {
    const size = message[at];
    if (size === undefined) return undefined;
    if (size === 0) {
      return { name: (text === '' ? ROOT : text) as DomainName, end: end ?? at + 1 };
    }
    if (size >= POINTER) {
      const low = message[at + 1];
      if (low === undefined) return undefined;
      end ??= at + 2;
      at = ((size & ~POINTER) << 8) | low;
      if (at >= lowest || at < MESSAGE_HEADER_LENGTH) return undefined;
      lowest = at;
      continue;
    }
    length += size + 1;
    const next = at + 1 + size;
    if (size > MOST_LABEL_BYTES || length > MOST_NAME_BYTES || next > message.length) {
      return undefined;
    }
    if (text !== '') text += '.';
    for (let i = at + 1; i < next; i++) text += TEXT_OF_BYTE[message[i] as number] as string;
    at = next;
  }
}

/** Returns the offset behind a name, without a look at where its pointer leads. */
export function skipName(message: Uint8Array, offset: number): number | undefined {
  for (let at = offset; ;) {
    const size = message[at];
    if (size === undefined) return undefined;
    if (size >= POINTER) return at + 2 <= message.length ? at + 2 : undefined;
    if (size > MOST_LABEL_BYTES) return undefined;
    at += size + 1;
    if (size === 0) return at;
    if (at - offset >= MOST_NAME_BYTES) return undefined;
  }
}

/** Returns the name as messages have it, uncompressed and in lower case. */
export function encodeName(name: DomainName): Uint8Array {
  const bytes = new Uint8Array(MOST_NAME_BYTES);
  let length = 0;
  for (const label of labelsOf(name)) {
    const start = length++;
    for (let i = 0; i < label.length; i++) {
      const code = label.charCodeAt(i);
      bytes[length++] = code === BACKSLASH ? Number(label.slice(i + 1, i + 4)) : code;
      if (code === BACKSLASH) i += 3;
    }
    bytes[start] = length - start - 1;
  }
  return bytes.slice(0, length + 1);
}

/** The labels from the first to the last; none for the root. */
export function labelsOf(name: DomainName): readonly string[] {
  return name === ROOT ? [] : name.split('.');
}

/**
 * Returns the name that the underscored labels in front speak about (RFC 8552): `crm.example` for
 * `_sip._tcp.crm.example`. A name without them, or with nothing else, is returned as it is.
 */
export function withoutUnderscoredLabels(name: DomainName): DomainName {
  let start = 0;
  while (name.charCodeAt(start) === UNDERSCORE) {
    const dot = name.indexOf('.', start);
    if (dot < 0) return name;
    start = dot + 1;
  }
  return name.slice(start) as DomainName;
}

/** `\DDD`, or a backslash before what is no digit. */
const ESCAPE = /^\\(?:([01]\d\d|2[0-4]\d|25[0-5])|[!-/:-~])/;

const DOT = 0x2e;
const BACKSLASH = 0x5c;
const UNDERSCORE = 0x5f;
const MESSAGE_HEADER_LENGTH = 12;
/** The two upper bits of a length that is half a pointer. */
const POINTER = 0xc0;

/** The canonical text of each byte of a label. */
const TEXT_OF_BYTE: readonly string[] = Array.from({ length: 256 }, (_, byte) =>
  byte > 0x20 && byte < 0x7f && byte !== DOT && byte !== BACKSLASH
    ? String.fromCharCode(byte).toLowerCase()
    : `\\${String(byte).padStart(3, '0')}`,
);
