import { formatCandidate, parseCandidate, type Candidate } from '../ice/candidate.ts';
import { decodeUtf8, encodeUtf8 } from '../sansio/utf8.ts';
import type { Command } from './command.ts';

/** Name of the document that holds where peers were last reached: they are tried there after a start. */
export const KEPT_CANDIDATES = 'candidates.json';

export type KeptCandidates = ReadonlyMap<string, readonly Candidate[]>;

const MOST_PER_PEER = 16;

export function keepCandidates(kept: KeptCandidates): Command {
  const peers = Object.fromEntries(
    [...kept].map(([id, candidates]) => [
      id,
      candidates.slice(0, MOST_PER_PEER).map(formatCandidate),
    ]),
  );
  return { type: 'store', name: KEPT_CANDIDATES, bytes: encodeUtf8(`${JSON.stringify(peers)}\n`) };
}

/** Reads what `keepCandidates` stored; what is damaged is left out, as it is only a start. */
export function readKeptCandidates(bytes: Uint8Array): KeptCandidates {
  const kept = new Map<string, readonly Candidate[]>();
  for (const [id, texts] of Object.entries(parseObject(decodeUtf8(bytes) ?? ''))) {
    if (!Array.isArray(texts)) continue;
    const candidates = texts.flatMap((text: unknown) =>
      typeof text === 'string' ? (parseCandidate(text) ?? []) : [],
    );
    if (candidates.length > 0) kept.set(id, candidates.slice(0, MOST_PER_PEER));
  }
  return kept;
}

function parseObject(text: string): object {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}
