import { SENDS, SEND_LENGTH, SEND_OFFSET, SEND_PATH, SEND_SEGMENT, SEND_SIZE } from './layout.ts';
import { readPath, type Path } from './path.ts';

/** A datagram that was taken out of the arena. */
export interface CopiedDatagram {
  readonly path: Path;
  readonly payload: Uint8Array;
}

/** Returns the datagrams of the first `count` send records one by one, whatever becomes of the arena. */
export function copySends(arena: ArrayBuffer, count: number): readonly CopiedDatagram[] {
  const view = new DataView(arena);
  const bytes = new Uint8Array(arena);
  const copies: CopiedDatagram[] = [];
  for (let record = SENDS; record < SENDS + count * SEND_SIZE; record += SEND_SIZE) {
    const path = readPath(arena, view.getUint32(record + SEND_PATH, true));
    if (path === undefined) continue;
    const at = view.getUint32(record + SEND_OFFSET, true);
    const length = view.getUint32(record + SEND_LENGTH, true);
    const segment = view.getUint32(record + SEND_SEGMENT, true) & 0xffff || length;
    for (let done = 0; done < length; done += segment) {
      const payload = bytes.slice(at + done, at + Math.min(done + segment, length));
      copies.push({ path, payload });
    }
  }
  return copies;
}
