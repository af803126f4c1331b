import type { BaseIssue } from 'valibot';
import { LIMITS } from './defaults.ts';

/** One thing wrong with a document. */
export interface ConfigurationError {
  /** `peers[2].allowedIps[0]`; empty for the document as a whole. */
  readonly path: string;
  /** Goes on from the path: `is missing`. Never holds a secret. */
  readonly message: string;
}

export type Parsed<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly errors: readonly ConfigurationError[] };

export function formatConfigurationError({ path, message }: ConfigurationError): string {
  return path === '' ? message : `${path}: ${message}`;
}

function formatPath(keys: readonly unknown[]): string {
  let path = '';
  for (const key of keys) {
    if (typeof key === 'number') path += `[${key}]`;
    else path += (path === '' ? '' : '.') + String(key);
  }
  return path;
}

/** Returns at most `LIMITS.errors`, the last of which counts those left out. */
export function limitErrors(errors: readonly ConfigurationError[]): readonly ConfigurationError[] {
  if (errors.length <= LIMITS.errors) return errors;
  const left = errors.length - LIMITS.errors + 1;
  return [...errors.slice(0, LIMITS.errors - 1), { path: '', message: `${left} more errors` }];
}

export function errorsOf(issues: readonly BaseIssue<unknown>[]): readonly ConfigurationError[] {
  return limitErrors(
    issues.map((issue) => {
      const keys = (issue.path ?? []).map((item) => item.key);
      // Keys are the sender's: a long one must not fill the log.
      return { path: formatPath(keys).slice(0, 128), message: messageOf(issue, keys.at(-1)) };
    }),
  );
}

/** Says what is expected and never what came: that may be a secret in the wrong place. */
function messageOf(issue: BaseIssue<unknown>, key: unknown): string {
  if (issue.kind !== 'schema') return issue.message;
  if (issue.type === 'strict_object' && issue.expected === 'never') {
    return key === 'privateKey'
      ? 'unknown key: a private key stands in a file of its own and never in a document'
      : 'unknown key';
  }
  if (issue.input === undefined) return 'is missing';
  const expected = issue.expected ?? 'something else';
  return EXPECTED[expected] ?? `must be ${enumerate(expected.replace(/[()]/g, '').split(' | '))}`;
}

function enumerate(choices: readonly string[]): string {
  const last = choices.at(-1) ?? '';
  return choices.length < 2 ? last : `${choices.slice(0, -1).join(', ')} or ${last}`;
}

const EXPECTED: Readonly<Record<string, string>> = {
  string: 'must be text',
  number: 'must be a number',
  boolean: 'must be true or false',
  Array: 'must be a list',
  Object: 'must be an object',
};
