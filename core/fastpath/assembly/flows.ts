/** The flow table: what JavaScript decided about the flow whose key lies at CONTROL_KEY. */
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
} from '../layout';

const SETS: i32 = MOST_FLOWS / FLOW_WAYS;

/** Returns the flow of this generation for the key, who included, or 0; also where its session has ended. */
export function lookup(who: u32): i32 {
  store<u32>(CONTROL_KEY, who, FLOW_WHO);
  const generation = load<u32>(CONTROL_GENERATION);
  let flow = set();
  for (let way = 0; way < FLOW_WAYS; way++, flow += FLOW_SIZE) {
    if (load<u32>(flow, FLOW_GENERATION) != generation || !hasKey(flow)) continue;
    const rewrite = load<i32>(flow, FLOW_REWRITE);
    return rewrite == 0 || isCurrent(rewrite) ? flow : 0;
  }
  return 0;
}

/**
 * Remembers the verdict for the key, in place of a flow of an older generation or the one unused for
 * longest. Returns the index of the row, in which JavaScript keeps the rewrite.
 */
export function insertFlow(verdict: u32, hasRewrite: bool): i32 {
  const generation = load<u32>(CONTROL_GENERATION);
  const batch = load<u32>(CONTROL_BATCH);
  let flow = set();
  let victim = flow;
  let greatest: i64 = -1;
  for (let way = 0; way < FLOW_WAYS; way++, flow += FLOW_SIZE) {
    if (hasKey(flow)) {
      victim = flow;
      break;
    }
    const isStale = load<u32>(flow, FLOW_GENERATION) != generation;
    const age: i64 = isStale ? 0x1_0000_0000 : <i64>(batch - load<u32>(flow, FLOW_BATCH));
    if (age > greatest) {
      greatest = age;
      victim = flow;
    }
  }
  memory.copy(victim, CONTROL_KEY, FLOW_VERDICT);
  store<u32>(victim, generation, FLOW_GENERATION);
  store<u32>(victim, verdict, FLOW_VERDICT);
  const index = (victim - FLOWS) / FLOW_SIZE;
  store<u32>(victim, hasRewrite ? REWRITES + index * REWRITE_SIZE : 0, FLOW_REWRITE);
  store<u32>(victim, batch, FLOW_BATCH);
  store<u32>(victim, 0, FLOW_GROUP);
  return index;
}

/** Forgets the flow with the key, who included. */
export function removeFlow(): void {
  let flow = set();
  for (let way = 0; way < FLOW_WAYS; way++, flow += FLOW_SIZE) {
    if (hasKey(flow)) store<u32>(flow, 0, FLOW_GENERATION);
  }
}

/** Whether the session of the rewrite, if it has one, has not ended. */
function isCurrent(rewrite: i32): bool {
  const session = load<i32>(rewrite, REWRITE_SESSION);
  if (session == 0) return true;
  return load<u32>(REWRITE_STAMPS + (session << 2)) == load<u32>(rewrite, REWRITE_STAMP);
}

function hasKey(flow: i32): bool {
  return (
    load<u64>(flow, FLOW_WHO) == load<u64>(CONTROL_KEY, FLOW_WHO) &&
    load<u32>(flow, FLOW_PORTS) == load<u32>(CONTROL_KEY, FLOW_PORTS) &&
    load<u64>(flow, FLOW_SOURCE) == load<u64>(CONTROL_KEY, FLOW_SOURCE) &&
    load<u64>(flow, FLOW_SOURCE + 8) == load<u64>(CONTROL_KEY, FLOW_SOURCE + 8) &&
    load<u64>(flow, FLOW_DESTINATION) == load<u64>(CONTROL_KEY, FLOW_DESTINATION) &&
    load<u64>(flow, FLOW_DESTINATION + 8) == load<u64>(CONTROL_KEY, FLOW_DESTINATION + 8)
  );
}

/** Returns the first flow of the set in which the key belongs. */
function set(): i32 {
  let hash: u32 = 0;
  for (let at = 0; at < FLOW_GENERATION; at += 4) hash = mix(hash, load<u32>(CONTROL_KEY + at));
  for (let at = FLOW_SOURCE; at < FLOW_VERDICT; at += 4) {
    hash = mix(hash, load<u32>(CONTROL_KEY + at));
  }
  return FLOWS + ((hash >> 16) & (SETS - 1)) * FLOW_SIZE * FLOW_WAYS;
}

function mix(hash: u32, word: u32): u32 {
  hash = (hash ^ word) * 0x9e3779b1;
  return hash ^ (hash >> 15);
}
