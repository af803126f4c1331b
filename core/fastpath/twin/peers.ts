import {
  CONTROL_TOUCHED,
  DROPS,
  FACT_LISTED,
  MOST_PEERS,
  PEERS,
  PEER_FACTS,
  PEER_SIZE,
  SESSIONS,
  SESSIONS_PER_PEER,
  SESSION_INSTALLED,
  SESSION_LOCAL_INDEX,
  SESSION_SIZE,
  TOUCHED,
} from '../layout.ts';
import type { Memory } from './memory.ts';

export function peerAt(peer: number): number {
  return PEERS + peer * PEER_SIZE;
}

/** Returns the installed session with this local index, or `undefined`. */
export function sessionAt(memory: Memory, localIndex: number): number | undefined {
  const peer = localIndex >>> 8;
  if (peer >= MOST_PEERS) return undefined;
  const slot = localIndex % SESSIONS_PER_PEER;
  const session = SESSIONS + (peer * SESSIONS_PER_PEER + slot) * SESSION_SIZE;
  const isIt =
    memory.u32(session + SESSION_INSTALLED) !== 0 &&
    memory.u32(session + SESSION_LOCAL_INDEX) === localIndex;
  return isIt ? session : undefined;
}

/** Adds facts for JavaScript and lists the peer among those touched. */
export function report(memory: Memory, peer: number, facts: number): void {
  const field = peerAt(peer) + PEER_FACTS;
  const before = memory.u32(field);
  memory.setU32(field, before | facts | FACT_LISTED);
  if ((before & FACT_LISTED) !== 0) return;
  memory.setU32(TOUCHED + memory.u32(CONTROL_TOUCHED) * 4, peer);
  memory.increase(CONTROL_TOUCHED, 1);
}

export function countDrop(memory: Memory, reason: number): void {
  memory.add(DROPS + reason * 8, 1);
}
