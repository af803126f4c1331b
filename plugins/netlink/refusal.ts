import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import type { Acknowledgement } from '../../core/netlink/message.ts';

/** Why the kernel did not do what it was asked. */
export interface Refusal {
  /** The errno's name, such as `EEXIST`. */
  readonly code: string;
  /** The kernel's own words, or the usual text of the errno. */
  readonly message: string;
  /** Where in the request the offending attribute starts, in bytes. */
  readonly attributeOffset: number | undefined;
}

export type Answer<Value> =
  { readonly ok: true; readonly value: Value } | { readonly ok: false; readonly refusal: Refusal };

/** Returns the refusal that an acknowledgement with an errno tells. */
export function kernelRefusal({ errno, message, attributeOffset }: Acknowledgement): Refusal {
  return { ...systemRefusal(-errno), ...(message && { message }), attributeOffset };
}

/** Returns the refusal that the negative result of a native call tells. */
export function systemRefusal(result: number): Refusal {
  const code = NAMES.get(-result) ?? `errno ${-result}`;
  const message = getSystemErrorMap().get(result)?.[1] ?? code;
  return { code, message, attributeOffset: undefined };
}

/** No answer of the kernel, but of ours about it. */
export function ownRefusal(code: string, message: string): Refusal {
  return { code, message, attributeOffset: undefined };
}

/** Errno numbers differ by CPU. Of the names that share one, the kernel's sources use these. */
const NAMES = new Map<number, string>([
  ...Object.entries(constants.errno).map(([name, number]) => [number, name] as const),
  [constants.errno.EAGAIN, 'EAGAIN'],
  [constants.errno.EOPNOTSUPP, 'EOPNOTSUPP'],
]);
