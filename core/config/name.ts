/**
 * The name of a fleet, a device or a peer: it stands in topics, broker access lists, certificates and
 * file names, so it is 1 to 64 of `A-Z a-z 0-9 . _ -` and starts with a letter or digit. A leading
 * underscore is kept for topics that are no device.
 */
export type Name = string & { readonly [name]: true };

declare const name: unique symbol;

export const NAME_PATTERN: RegExp = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

export function parseName(text: string): Name | undefined {
  return NAME_PATTERN.test(text) ? (text as Name) : undefined;
}
