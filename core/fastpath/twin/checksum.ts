import type { Memory } from './memory.ts';

/** The Internet checksum (RFC 1071) over 16-bit words in network order. */

export function sum(memory: Memory, at: number, length: number): number {
  let total = 0;
  for (let i = 0; i + 1 < length; i += 2) total += memory.n16(at + i);
  if (length % 2 === 1) total += memory.u8(at + length - 1) * 256;
  return total;
}

/** Returns the sum of the TCP or UDP pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1). */
export function pseudoSum(
  memory: Memory,
  packet: number,
  family: number,
  protocol: number,
  length: number,
): number {
  const addresses = family === 4 ? sum(memory, packet + 12, 8) : sum(memory, packet + 8, 32);
  return addresses + protocol + length;
}

/** Folds to the 16-bit one's complement sum. */
export function fold(total: number): number {
  let folded = total;
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 0x10000);
  return folded;
}

/** Returns the checksum for the sum of everything else. */
export function checksum(total: number): number {
  return 0xffff - fold(total);
}

/** Writes the header checksum of the IPv4 packet. */
export function writeHeaderChecksum(memory: Memory, packet: number, length: number): void {
  memory.setN16(packet + 10, 0);
  memory.setN16(packet + 10, checksum(sum(memory, packet, length)));
}

/** Corrects the checksum at `field` for a word that changed (RFC 1624). */
export function adjustChecksum(memory: Memory, field: number, before: number, after: number): void {
  const total = 0xffff - memory.n16(field) + (0xffff - before) + after;
  memory.setN16(field, checksum(total));
}
