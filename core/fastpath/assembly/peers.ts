/** Facts and counters of peers. */
import {
  CONTROL_TOUCHED,
  DROPS,
  FACT_LISTED,
  PEERS,
  PEER_FACTS,
  PEER_SIZE,
  TOUCHED,
} from '../layout';

export function peerAt(peer: i32): i32 {
  return PEERS + peer * PEER_SIZE;
}

/** Adds facts for JavaScript and lists the peer among those touched. */
export function report(peer: i32, facts: u32): void {
  const row = peerAt(peer);
  const before = load<u32>(row, PEER_FACTS);
  store<u32>(row, before | facts | FACT_LISTED, PEER_FACTS);
  if (before & FACT_LISTED) return;
  const touched = load<u32>(CONTROL_TOUCHED);
  store<u32>(TOUCHED + (touched << 2), peer);
  store<u32>(CONTROL_TOUCHED, touched + 1);
}

export function add(counter: i32, amount: u64): void {
  store<u64>(counter, load<u64>(counter) + amount);
}

export function countDrop(reason: i32): void {
  add(DROPS + (reason << 3), 1);
}
