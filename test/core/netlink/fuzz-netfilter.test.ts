import fc from 'fast-check';
import { readFileSync } from 'node:fs';
import t from 'tap';
import {
  decodeConnection,
  decodeConnectionEvent,
} from '../../../core/netlink/conntrack/connection.ts';
import { readMessages } from '../../../core/netlink/message.ts';
import { decodeChain } from '../../../core/netlink/nftables/chain.ts';
import { assembleElements, decodeElements } from '../../../core/netlink/nftables/element.ts';
import { decodeGeneration } from '../../../core/netlink/nftables/generation.ts';
import { decodeObject } from '../../../core/netlink/nftables/object.ts';
import { decodeRule } from '../../../core/netlink/nftables/rule.ts';
import { decodeSet, shapeOf } from '../../../core/netlink/nftables/set.ts';
import { decodeTable } from '../../../core/netlink/nftables/table.ts';
import { decodeHex } from '../../../core/sansio/hex.ts';
import { CONNECTION } from './conntrack/messages.ts';

const VECTORS: readonly { readonly hex: string }[] = JSON.parse(
  readFileSync(new URL('../../vectors/nftables.json', import.meta.url), 'utf8'),
);
const SEEDS = [...VECTORS.map(({ hex }) => hex), CONNECTION].map((hex) => decodeHex(hex)!);

const DECODERS = [
  decodeTable,
  decodeChain,
  decodeRule,
  decodeSet,
  decodeElements,
  decodeObject,
  decodeGeneration,
  decodeConnection,
  decodeConnectionEvent,
];
const SHAPES = [
  shapeOf({ name: 's', key: ['ipv4_addr'], isInterval: true }),
  shapeOf({ name: 's', key: ['ipv4_addr', 'inet_service'], isInterval: true }),
  shapeOf({ name: 's', key: ['ipv4_addr'] }),
];

await t.test('no bytes make a decoder throw', async (t) => {
  const noise = fc.uint8Array({ maxLength: 600 });
  fc.assert(fc.property(noise, fc.nat(DECODERS.length * 3), readAll), { numRuns: 3000 });
  const mutated = fc
    .tuple(
      fc.constantFrom(...SEEDS),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 }),
      fc.nat(),
    )
    .map(([seed, changes, cut]) => {
      const bytes = seed.slice();
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      return cut % 4 === 0 ? bytes.subarray(0, cut % bytes.length) : bytes;
    });
  fc.assert(fc.property(mutated, fc.nat(20), readAll), { numRuns: 10_000 });
  t.pass();
});

/** Reads the bytes as a datagram, and its body as a message of any kind. */
function readAll(bytes: Uint8Array, kind: number): void {
  const body = bytes.subarray(Math.min(16, bytes.length));
  const anyKind = { flags: 0, sequence: 0, port: 0, body };
  const forged = [10, 1].map((subsystem) => ({ ...anyKind, type: (subsystem << 8) | kind }));
  for (const message of [...readMessages(bytes).messages, ...forged]) {
    for (const decode of DECODERS) decode(message);
    const list = decodeElements(message);
    for (const shape of SHAPES) if (list) assembleElements(list.elements, shape);
  }
}
