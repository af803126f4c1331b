import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import type { DomainName } from './name.ts';

/**
 * The names of a DNS resource: `?` stands for one byte, `*` for exactly one label (in front, `*.` also
 * for none: the bare parent matches), `**` for any number of labels. Lower case, without the last dot.
 */
export type Pattern = string & { readonly [brand]: true };

declare const brand: unique symbol;

export type PatternError =
  | 'empty-label'
  | 'label-too-long'
  | 'name-too-long'
  | 'bad-character'
  | 'wildcard-in-label'
  | 'repeated-any-depth'
  | 'no-literal-label';

/** What is wrong, for people; goes on from the path of the value. */
export const PATTERN_ERRORS: Readonly<Record<PatternError, string>> = {
  'empty-label': 'must not be empty or have two dots in a row',
  'label-too-long': 'must have at most 63 characters between dots',
  'name-too-long': 'must have at most 253 characters',
  'bad-character': 'may hold letters, digits, "-", "_", "?" and "*" (write others in Punycode)',
  'wildcard-in-label': 'must have "*" and "**" stand alone between dots',
  'repeated-any-depth': 'may hold "**" once',
  'no-literal-label': 'must hold at least one label without a wildcard',
};

export function parsePattern(text: string): Outcome<Pattern, PatternError> {
  const pattern = text.toLowerCase().replace(/(.)\.$/, '$1');
  if (pattern.length > 253) return failed('name-too-long');
  const labels = pattern.split('.');
  for (const label of labels) {
    if (label === '') return failed('empty-label');
    if (label.length > 63) return failed('label-too-long');
    if (!/^[a-z0-9_?*-]+$/.test(label)) return failed('bad-character');
    if (label.includes('*') && !isStar(label)) return failed('wildcard-in-label');
  }
  if (labels.filter((label) => label === '**').length > 1) return failed('repeated-any-depth');
  if (!labels.some(isLiteral)) return failed('no-literal-label');
  return ok(pattern as Pattern);
}

/**
 * Orders the more specific of two patterns first. Labels are compared from right to left: a literal one
 * before one with `?`, that before `*`, that before `**`. Where one pattern ends, the shorter is the more
 * specific, unless both had `**` before: there each further label says more.
 */
export function compareSpecificity(a: Pattern, b: Pattern): number {
  const labelsOfA = a.split('.').reverse();
  const labelsOfB = b.split('.').reverse();
  const common = Math.min(labelsOfA.length, labelsOfB.length);
  for (let i = 0; i < common; i++) {
    const order = compareLabels(labelsOfA[i] ?? '', labelsOfB[i] ?? '');
    if (order !== 0) return order;
  }
  const isBehindAnyDepth = labelsOfA.slice(0, common).includes('**');
  return (labelsOfA.length - labelsOfB.length) * (isBehindAnyDepth ? -1 : 1);
}

/**
 * Finds the values of the patterns that match a name. Patterns are filed under the literal labels that
 * they end with, so a lookup asks for each ending of the name once and compares few patterns.
 */
export class PatternTable<Value> {
  readonly #entries = new Map<string, Entry<Value>[]>();
  #size = 0;

  /** Several values may have the same pattern; they are found in the order in which they stand here. */
  constructor(entries: Iterable<readonly [Pattern, Value]>) {
    for (const [pattern, value] of entries) {
      const labels = pattern.split('.');
      let firstOfEnd = labels.length;
      while (firstOfEnd > 0 && isLiteral(labels[firstOfEnd - 1] ?? '')) firstOfEnd--;
      const end = labels.slice(firstOfEnd).join('.');
      const entry = { pattern, rest: labels.slice(0, firstOfEnd), value };
      const others = this.#entries.get(end);
      if (others === undefined) this.#entries.set(end, [entry]);
      else others.push(entry);
      this.#size++;
    }
    for (const entries of this.#entries.values()) {
      entries.sort((a, b) => compareSpecificity(a.pattern, b.pattern));
    }
  }

  get size(): number {
    return this.#size;
  }

  /** The values of all patterns that match, the most specific first. */
  matches(name: DomainName): readonly Value[] {
    const found: Value[] = [];
    // A longer literal end is more specific than whatever else could match in its place.
    let start = 0;
    do {
      this.#collect(name.slice(start), name.slice(0, Math.max(0, start - 1)), found);
      start = name.indexOf('.', start) + 1;
    } while (start > 0);
    this.#collect('', name, found);
    return found;
  }

  #collect(end: string, front: string, found: Value[]): void {
    const entries = this.#entries.get(end);
    if (entries === undefined) return;
    const labels = front === '' ? [] : front.split('.');
    for (const { rest, value } of entries) if (isMatch(rest, labels)) found.push(value);
  }
}

interface Entry<Value> {
  readonly pattern: Pattern;
  /** The labels before the literal ones at the end. */
  readonly rest: readonly string[];
  readonly value: Value;
}

function isMatch(pattern: readonly string[], labels: readonly string[]): boolean {
  if (isMatchInFull(pattern, labels)) return true;
  return pattern[0] === '*' && isMatchInFull(pattern.slice(1), labels);
}

function isMatchInFull(pattern: readonly string[], labels: readonly string[]): boolean {
  const anyDepth = pattern.indexOf('**');
  if (anyDepth < 0) {
    return pattern.length === labels.length && pattern.every((p, i) => isLabelMatch(p, labels[i]));
  }
  const behind = pattern.length - anyDepth - 1;
  if (labels.length < anyDepth + behind) return false;
  for (let i = 0; i < anyDepth; i++) if (!isLabelMatch(pattern[i], labels[i])) return false;
  for (let i = 1; i <= behind; i++) if (!isLabelMatch(pattern.at(-i), labels.at(-i))) return false;
  return true;
}

function isLabelMatch(pattern = '', label = ''): boolean {
  if (pattern === '*') return true;
  if (!pattern.includes('?')) return pattern === label;
  // An odd byte is four characters of text, `\255`.
  const bytes = label.includes('\\') ? (label.match(/\\\d{3}|./g) ?? []) : label;
  if (bytes.length !== pattern.length) return false;
  for (let i = 0; i < pattern.length; i++) {
    if (pattern[i] !== '?' && pattern[i] !== bytes[i]) return false;
  }
  return true;
}

function compareLabels(a: string, b: string): number {
  const byKind = kindOf(a) - kindOf(b);
  if (byKind !== 0 || !a.includes('?')) return byKind;
  for (let i = 1; i <= Math.min(a.length, b.length); i++) {
    const byCharacter = kindOf(a.at(-i) ?? '') - kindOf(b.at(-i) ?? '');
    if (byCharacter !== 0) return byCharacter;
  }
  return a.length - b.length;
}

/** The place in the order literal < `?` < `*` < `**`. */
function kindOf(label: string): number {
  return label === '**' ? 3 : label === '*' ? 2 : label.includes('?') ? 1 : 0;
}

function isLiteral(label: string): boolean {
  return kindOf(label) === 0;
}

function isStar(label: string): boolean {
  return label === '*' || label === '**';
}
