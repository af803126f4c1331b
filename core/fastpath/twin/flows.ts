import {
  CONTROL_BATCH,
  CONTROL_GENERATION,
  CONTROL_KEY,
  FLOWS,
  FLOW_BATCH,
  FLOW_DESTINATION,
  FLOW_GENERATION,
  FLOW_GROUP,
  FLOW_PORTS,
  FLOW_REWRITE,
  FLOW_SIZE,
  FLOW_SOURCE,
  FLOW_VERDICT,
  FLOW_WAYS,
  FLOW_WHO,
  MOST_FLOWS,
  REWRITES,
  REWRITE_SESSION,
  REWRITE_SIZE,
  REWRITE_STAMP,
  REWRITE_STAMPS,
} from '../layout.ts';
import type { Memory } from './memory.ts';

/**
 * Returns the flow of this generation for the key at CONTROL_KEY, who included, or `undefined`; also where
 * its session has ended.
 */
export function lookup(memory: Memory, who: number): number | undefined {
  memory.setU32(CONTROL_KEY + FLOW_WHO, who);
  const generation = memory.u32(CONTROL_GENERATION);
  const found = ways(memory).find(
    (flow) => memory.u32(flow + FLOW_GENERATION) === generation && hasKey(memory, flow),
  );
  return found !== undefined && isCurrent(memory, found) ? found : undefined;
}

/**
 * Remembers the verdict for the key, in place of a flow of an older generation or the one unused for
 * longest. Returns the index of the row.
 */
export function insertFlow(memory: Memory, verdict: number, hasRewrite: boolean): number {
  const generation = memory.u32(CONTROL_GENERATION);
  const batch = memory.u32(CONTROL_BATCH);
  const age = (flow: number): number => {
    if (hasKey(memory, flow)) return Infinity;
    if (memory.u32(flow + FLOW_GENERATION) !== generation) return 2 ** 32;
    return (batch - memory.u32(flow + FLOW_BATCH)) >>> 0;
  };
  const victim = ways(memory).reduce((oldest, flow) => (age(flow) > age(oldest) ? flow : oldest));
  memory.copy(victim, CONTROL_KEY, FLOW_VERDICT);
  memory.setU32(victim + FLOW_GENERATION, generation);
  memory.setU32(victim + FLOW_VERDICT, verdict);
  const index = (victim - FLOWS) / FLOW_SIZE;
  memory.setU32(victim + FLOW_REWRITE, hasRewrite ? REWRITES + index * REWRITE_SIZE : 0);
  memory.setU32(victim + FLOW_BATCH, batch);
  memory.setU32(victim + FLOW_GROUP, 0);
  return index;
}

/** Forgets the flow with the key, who included. */
export function removeFlow(memory: Memory): void {
  for (const flow of ways(memory)) {
    if (hasKey(memory, flow)) memory.setU32(flow + FLOW_GENERATION, 0);
  }
}

/** Whether the session for which the flow is rewritten, if there is one, has not ended. */
function isCurrent(memory: Memory, flow: number): boolean {
  const row = memory.u32(flow + FLOW_REWRITE);
  const session = row === 0 ? 0 : memory.u32(row + REWRITE_SESSION);
  if (session === 0) return true;
  return memory.u32(REWRITE_STAMPS + session * 4) === memory.u32(row + REWRITE_STAMP);
}

function hasKey(memory: Memory, flow: number): boolean {
  return (
    memory.isEqual(flow + FLOW_WHO, CONTROL_KEY + FLOW_WHO, 8) &&
    memory.isEqual(flow + FLOW_PORTS, CONTROL_KEY + FLOW_PORTS, 4) &&
    memory.isEqual(flow + FLOW_SOURCE, CONTROL_KEY + FLOW_SOURCE, 16) &&
    memory.isEqual(flow + FLOW_DESTINATION, CONTROL_KEY + FLOW_DESTINATION, 16)
  );
}

/** Returns the flows of the set in which the key belongs. */
function ways(memory: Memory): number[] {
  let hash = 0;
  for (let at = 0; at < FLOW_VERDICT; at += 4) {
    if (at !== FLOW_GENERATION) hash = mix(hash, memory.u32(CONTROL_KEY + at));
  }
  const sets = MOST_FLOWS / FLOW_WAYS;
  const first = FLOWS + ((hash >>> 16) % sets) * FLOW_WAYS * FLOW_SIZE;
  return Array.from({ length: FLOW_WAYS }, (_, way) => first + way * FLOW_SIZE);
}

function mix(hash: number, word: number): number {
  const mixed = Math.imul(hash ^ word, 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}
