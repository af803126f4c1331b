import { constants } from 'node:os';

/** Returns the name of what a native call answered, `ENOENT` for -2; the numbers differ by CPU. */
export function errnoName(result: number): string {
  return NAMES.get(-result) ?? `errno ${-result}`;
}

// EWOULDBLOCK and EOPNOTSUPP have two names for one number each; the first one listed is the usual one.
const NAMES = new Map(
  Object.entries(constants.errno)
    .reverse()
    .map(([name, number]) => [number, name] as const),
);
