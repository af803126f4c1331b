import type { SetElement } from './element.ts';
import type { Data } from './verdict.ts';

export interface ElementDiff {
  readonly removed: readonly SetElement[];
  readonly added: readonly SetElement[];
}

/**
 * Returns what has to be removed, then added, so that a set has the wanted elements. One whose value,
 * timeout or comment differs is in both. `timeoutMs` is what elements have that say nothing else.
 *
 * Wanted lists are long and change by little: what is equal at both ends is passed over in one sweep, then
 * what are the same objects, and only the rest is looked up by key.
 */
export function diffElements(
  wanted: readonly SetElement[],
  observed: readonly SetElement[],
  timeoutMs: number | undefined,
): ElementDiff {
  if (wanted === observed) return { removed: [], added: [] };
  const isSame = (a: SetElement | undefined, b: SetElement | undefined) =>
    a !== undefined && b !== undefined && isEqual(a, b, timeoutMs);
  const shorter = Math.min(wanted.length, observed.length);
  let start = 0;
  for (; start < shorter; start++) {
    const a = wanted[start];
    const b = observed[start];
    if (a !== b && !isSame(a, b)) break;
  }
  let end = 0;
  for (; end < shorter - start; end++) {
    const a = wanted[wanted.length - 1 - end];
    const b = observed[observed.length - 1 - end];
    if (a !== b && !isSame(a, b)) break;
  }

  const there = new Set(observed.slice(start, observed.length - end));
  const missing = new Map<string, SetElement>();
  for (const element of wanted.slice(start, wanted.length - end)) {
    if (!there.delete(element)) missing.set(elementKey(element), element);
  }
  const removed: SetElement[] = [];
  for (const element of there) {
    const key = elementKey(element);
    if (isSame(missing.get(key), element)) missing.delete(key);
    else removed.push(element);
  }
  return { removed, added: Array.from(missing.values()) };
}

/** Kernels count timeouts in ticks of at most this many milliseconds. */
const TICK_MS = 10;

function isEqual(a: SetElement, b: SetElement, timeoutMs = 0): boolean {
  return (
    isSameBytes(a.key, b.key) &&
    isSameBytes(a.lastKey ?? a.key, b.lastKey ?? b.key) &&
    isSameValue(a.value, b.value) &&
    Math.abs((a.timeoutMs ?? timeoutMs) - (b.timeoutMs ?? timeoutMs)) <= TICK_MS &&
    a.comment === b.comment
  );
}

function isSameValue(a: Data | string | undefined, b: Data | string | undefined): boolean {
  if (a instanceof Uint8Array) return b instanceof Uint8Array && isSameBytes(a, b);
  if (typeof a !== 'object' || typeof b !== 'object') return a === b;
  if (b instanceof Uint8Array || a.type !== b.type) return false;
  return ('chain' in a ? a.chain : undefined) === ('chain' in b ? b.chain : undefined);
}

function isSameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** The keys of an element as text; no two elements of a set have the same. */
function elementKey({ key, lastKey }: SetElement): string {
  const first = String.fromCharCode(...key);
  if (lastKey === undefined || isSameBytes(key, lastKey)) return first;
  return first + String.fromCharCode(...lastKey);
}
