import { readFileSync } from 'node:fs';

/**
 * Whether the file begins as ELF and ends too early: the table of sections is the last thing in one. The
 * loader reads on past such an end, and the kernel kills the process for it; whatever else is wrong with
 * a file the loader finds by itself.
 */
export function isElfCutOff(path: string): boolean {
  const bytes = read(path);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < 4 || view.getUint32(0) !== MAGIC) return false;
  if (bytes.length < HEADER_SIZE) return true;
  const is64Bit = bytes[4] === 2;
  const isLittleEndian = bytes[5] === 1;
  const table = is64Bit
    ? Number(view.getBigUint64(0x28, isLittleEndian))
    : view.getUint32(0x20, isLittleEndian);
  const entrySize = view.getUint16(is64Bit ? 0x3a : 0x2e, isLittleEndian);
  const entries = view.getUint16(is64Bit ? 0x3c : 0x30, isLittleEndian);
  return table + entrySize * entries > bytes.length;
}

/** "\x7fELF" */
const MAGIC = 0x7f454c46;
/** Of 64-bit files; 52 bytes in 32-bit ones. */
const HEADER_SIZE = 64;

function read(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch {
    // The loader says why.
    return new Uint8Array();
  }
}
