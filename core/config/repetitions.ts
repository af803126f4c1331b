import type { ConfigurationError } from './error.ts';

/** Refuses the second use of what must be unique. Takes values with their paths. */
export function repetitions(
  values: readonly (readonly [value: string, path: string])[],
  complaint = 'is the same as',
): readonly ConfigurationError[] {
  const errors: ConfigurationError[] = [];
  const seen = new Map<string, string>();
  for (const [value, path] of values) {
    const first = seen.get(value);
    if (first === undefined) seen.set(value, path);
    else errors.push({ path, message: `${complaint} ${first}` });
  }
  return errors;
}
