import { CONTROL_MTU } from '../layout.ts';
import { adjustChecksum } from './checksum.ts';
import type { Memory } from './memory.ts';
import { TCP, type Packet } from './packet.ts';

const SYN = 2;
const END = 0;
const NO_OPERATION = 1;
const MAXIMUM_SEGMENT_SIZE = 2;

/**
 * Clamps the maximum segment size that a TCP SYN announces to what the tunnel carries. The packet lies
 * at `at`; its checksum stays as right as it was.
 */
export function clampMss(memory: Memory, packet: Packet, at: number): void {
  const { protocol, fragment, length, transport, family } = packet;
  if (protocol !== TCP || fragment || length < transport + 20) return;
  const header = at + transport;
  if ((memory.u8(header + 13) & SYN) === 0) return;
  const end = header + Math.min((memory.u8(header + 12) >> 4) * 4, length - transport);
  const limit = memory.u32(CONTROL_MTU) - (family === 4 ? 40 : 60);
  for (let option = header + 20; option < end;) {
    const kind = memory.u8(option);
    if (kind === END) return;
    if (kind === NO_OPERATION) {
      option++;
      continue;
    }
    if (option + 2 > end) return;
    const size = memory.u8(option + 1);
    if (size < 2 || option + size > end) return;
    if (kind === MAXIMUM_SEGMENT_SIZE && size === 4) clamp(memory, header, option + 2, limit);
    option += size;
  }
}

function clamp(memory: Memory, header: number, at: number, limit: number): void {
  const before = memory.n16(at);
  if (before <= limit) return;
  memory.setN16(at, limit);
  // A value at an odd offset lies across two words of the checksum: the same sum with swapped bytes.
  const isOdd = (at - header) % 2 === 1;
  const inSum = (value: number): number => (isOdd ? ((value & 0xff) << 8) | (value >> 8) : value);
  adjustChecksum(memory, header + 16, inSum(before), inSum(limit));
}
