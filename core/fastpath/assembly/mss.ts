/** Clamps the maximum segment size that a TCP SYN announces to what the tunnel carries. */
import { CONTROL_MTU } from '../layout';
import { adjustChecksum, swap } from './checksum';
import { TCP, family, fragment, length, protocol, transport } from './packet';

const SYN: u32 = 2;
const END: u32 = 0;
const NO_OPERATION: u32 = 1;
const MAXIMUM_SEGMENT_SIZE: u32 = 2;

/** Clamps the packet that `parse` read, which lies at `packet`; its checksum stays as right as it was. */
export function clampMss(packet: i32): void {
  if (protocol != TCP || fragment || length < transport + 20) return;
  const header = packet + transport;
  if (!(load<u8>(header, 13) & SYN)) return;
  const end = header + min<i32>((load<u8>(header, 12) >> 4) << 2, length - transport);
  const limit: u32 = load<u32>(CONTROL_MTU) - (family == 4 ? 40 : 60);
  for (let at = header + 20; at < end;) {
    const kind = load<u8>(at);
    if (kind == END) return;
    if (kind == NO_OPERATION) {
      at++;
      continue;
    }
    if (at + 2 > end) return;
    const size: i32 = load<u8>(at, 1);
    if (size < 2 || at + size > end) return;
    if (kind == MAXIMUM_SEGMENT_SIZE && size == 4) clamp(header, at + 2, limit);
    at += size;
  }
}

function clamp(header: i32, at: i32, limit: u32): void {
  const before = load<u16>(at);
  if (swap(before) <= limit) return;
  const after = swap(limit);
  store<u16>(at, after);
  // A value at an odd offset lies across two words of the checksum: the same sum with swapped bytes.
  const isOdd = ((at - header) & 1) != 0;
  adjustChecksum(header + 16, isOdd ? swap(before) : before, isOdd ? swap(after) : after);
}
