import type { AttributeReader } from '../attribute.ts';
import type { MessageWriter } from '../message-writer.ts';
import { DataAttribute, VerdictAttribute } from './constants.ts';

/** What becomes of the packet. */
export type Verdict =
  | { readonly type: 'accept' | 'drop' | 'continue' | 'return' }
  | { readonly type: 'jump' | 'goto'; readonly chain: string };

/** What a register is loaded with, or a map leads to. */
export type Data = Uint8Array | Verdict;

const CODES = { drop: 0, accept: 1, continue: -1, jump: -3, goto: -4, return: -5 } as const;

/** Writes the attribute `type` with NFTA_DATA_* inside. */
export function writeData(writer: MessageWriter, type: number, data: Data): void {
  writer.nested(type, () => {
    if (data instanceof Uint8Array) writer.bytes(DataAttribute.value, data);
    else writer.nested(DataAttribute.verdict, () => writeVerdict(writer, data));
  });
}

/** Reads NFTA_DATA_*; a value is a copy. `undefined` for a verdict that we do not know. */
export function readData(reader: AttributeReader): Data | undefined {
  while (reader.next()) {
    if (reader.type === DataAttribute.value) return reader.value.slice();
    if (reader.type === DataAttribute.verdict) return readVerdict(reader.nested());
  }
  return undefined;
}

/** Reads NFTA_DATA_* that can be nothing but a value. */
export function readValue(reader: AttributeReader): Uint8Array | undefined {
  const data = readData(reader);
  return data instanceof Uint8Array ? data : undefined;
}

function writeVerdict(writer: MessageWriter, verdict: Verdict): void {
  writer.be32(VerdictAttribute.code, CODES[verdict.type]);
  if ('chain' in verdict) writer.name(VerdictAttribute.chain, verdict.chain);
}

function readVerdict(reader: AttributeReader): Verdict | undefined {
  let code: number | undefined;
  let chain: string | undefined;
  while (reader.next()) {
    if (reader.type === VerdictAttribute.code) code = reader.be32();
    else if (reader.type === VerdictAttribute.chain) chain = reader.text();
  }
  const type = code === undefined ? undefined : VERDICTS.get(code | 0);
  if (type !== 'jump' && type !== 'goto') return type && { type };
  return chain === undefined ? undefined : { type, chain };
}

const VERDICTS: ReadonlyMap<number, Verdict['type']> = new Map([
  [CODES.drop, 'drop'],
  [CODES.accept, 'accept'],
  [CODES.continue, 'continue'],
  [CODES.jump, 'jump'],
  [CODES.goto, 'goto'],
  [CODES.return, 'return'],
]);
