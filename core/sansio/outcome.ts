/** The result of something that can fail for a known reason: a value, or why there is none. */
export type Outcome<Value, Why extends string = string> =
  { readonly ok: true; readonly value: Value } | { readonly ok: false; readonly why: Why };

export function ok<Value>(value: Value): { readonly ok: true; readonly value: Value } {
  return { ok: true, value };
}

export function failed<Why extends string>(why: Why): { readonly ok: false; readonly why: Why } {
  return { ok: false, why };
}

/** A broken invariant of ours: never the fault of a remote, a user or the kernel. */
export class BugError extends Error {
  override readonly name = 'BugError';
}

/** Marks a place that the types say cannot be reached. */
export function unreachable(value: never): never {
  throw new BugError(`unreachable: ${String(value)}`);
}
