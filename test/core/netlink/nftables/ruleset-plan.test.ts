import fc from 'fast-check';
import t from 'tap';
import { LARGEST_ATTRIBUTE } from '../../../../core/netlink/constants.ts';
import { MessageWriter } from '../../../../core/netlink/message-writer.ts';
import { readMessages } from '../../../../core/netlink/message.ts';
import { Priority } from '../../../../core/netlink/nftables/chain.ts';
import { concatenate, markData } from '../../../../core/netlink/nftables/data-type.ts';
import { diffElements } from '../../../../core/netlink/nftables/element-diff.ts';
import {
  assembleElements,
  chunkElements,
  decodeElements,
  writeElements,
  type SetElement,
} from '../../../../core/netlink/nftables/element.ts';
import { field, isIn } from '../../../../core/netlink/nftables/match.ts';
import {
  encodeRulesetChanges,
  joinBatch,
} from '../../../../core/netlink/nftables/ruleset-batch.ts';
import {
  observedAfter,
  planTable,
  prepareTable,
  type ObservedTable,
} from '../../../../core/netlink/nftables/ruleset-plan.ts';
import { shapeOf, type SetDefinition } from '../../../../core/netlink/nftables/set.ts';
import {
  accept,
  countIn,
  decide,
  drop,
  jump,
  rule,
} from '../../../../core/netlink/nftables/statement.ts';
import type { WantedTable } from '../../../../core/netlink/nftables/wanted-ruleset.ts';
import { address, EVERYTHING } from '../../../netns/nftables-rules.ts';

const base = { type: 'filter', hook: 'forward', priority: Priority.filter } as const;
const T = { family: 'inet', name: 't' } as const;

const OLD: WantedTable = {
  ...T,
  objects: [{ kind: 'counter', name: 'old' }],
  sets: [
    { name: 'gone', key: ['mark'], elements: [] },
    {
      name: 'ways',
      key: ['mark'],
      value: { type: 'verdict' },
      elements: [{ key: markData(1), value: { type: 'jump', chain: 'leaving' } }],
    },
  ],
  chains: [
    { name: 'main', base, rules: [rule(countIn('old')), rule(decide('ways', field.mark))] },
    { name: 'leaving', rules: [rule(isIn('gone', field.mark), drop)] },
    { name: 'same', rules: [rule(accept)] },
  ],
};

const NEW: WantedTable = {
  ...T,
  objects: [{ kind: 'counter', name: 'new' }],
  sets: [
    {
      name: 'ways',
      key: ['mark'],
      value: { type: 'verdict' },
      elements: [{ key: markData(1), value: { type: 'jump', chain: 'coming' } }],
    },
    { name: 'fresh', key: ['mark'], elements: [{ key: markData(7) }] },
  ],
  chains: [
    { name: 'main', base, rules: [rule(countIn('new')), rule(jump('coming'))] },
    { name: 'coming', rules: [rule(isIn('fresh', field.mark), drop)] },
    { name: 'same', rules: [rule(accept)] },
  ],
};

await t.test('makes what is referred to first, and removes it last', async (t) => {
  const steps = plan(NEW, observed(OLD)).map((change) => {
    if (change.type === 'change-elements') return `${change.request} ${change.set.name}`;
    if ('chain' in change) {
      const name = typeof change.chain === 'string' ? change.chain : change.chain.name;
      return `${change.type} ${name}`;
    }
    if ('set' in change) {
      return `${change.type} ${typeof change.set === 'string' ? change.set : change.set.name}`;
    }
    return 'object' in change ? `${change.type} ${change.object.name}` : change.type;
  });
  t.strictSame(steps, [
    'add-object new',
    'add-chain coming',
    'flush-chain main',
    'flush-chain leaving',
    'remove ways',
    'remove-set gone',
    'add-set fresh',
    'add ways',
    'add fresh',
    'add-rule main',
    'add-rule main',
    'add-rule coming',
    'remove-chain leaving',
    'remove-object old',
  ]);
});

await t.test('finds nothing to do after it was done', async (t) => {
  for (const wanted of [OLD, NEW, EVERYTHING]) {
    const there = observed(wanted);
    const sets = there.sets.map((set) => ({
      ...set,
      elements: wanted.sets?.find(({ name }) => name === set.name)?.elements ?? [],
    }));
    t.strictSame(plan(wanted, { ...there, sets }), []);
  }
});

await t.test(
  'replaces the table for what cannot change in place, and for nothing else',
  async (t) => {
    const first = (wanted: WantedTable) => plan(wanted, observed(OLD))[0]?.type;
    const [main, ...chains] = OLD.chains;
    const [gone, ...sets] = OLD.sets!;
    const priority = { ...main!, base: { ...base, priority: 1 } };
    t.equal(first({ ...OLD, chains: [priority, ...chains] }), 'remove-table');
    t.equal(first({ ...OLD, sets: [{ ...gone!, key: ['ipv4_addr'] }, ...sets] }), 'remove-table');
    t.equal(first({ ...OLD, isOwned: true }), 'remove-table');
    t.equal(first({ ...OLD, chains: [{ ...main!, base: undefined }, ...chains] }), 'remove-table');
    const policy = { ...main!, base: { ...base, policy: 'drop' } as const };
    t.equal(first({ ...OLD, chains: [policy, ...chains] }), 'set-policy');
    t.equal(first({ ...OLD, isDormant: true }), 'set-flags');
  },
);

await t.test('leaves the elements of a set alone that others fill', async (t) => {
  const [gone, ...sets] = OLD.sets!;
  const { elements: _, ...open } = gone!;
  const there = observed(OLD);
  const filled = there.sets.map((set) => ({ ...set, elements: [{ key: markData(9) }] }));
  const changes = plan({ ...OLD, sets: [open, ...sets] }, { ...there, sets: filled });
  t.notOk(
    changes.some((change) => change.type === 'change-elements' && change.set.name === 'gone'),
  );
});

await t.test('finds the way from any elements to any others', async (t) => {
  const elements = fc
    .uniqueArray(fc.tuple(fc.nat(40), fc.nat(2), fc.option(fc.nat(1))), {
      selector: ([key]) => key,
    })
    .map((rows) =>
      rows.map(([key, value, comment]): SetElement => {
        const timeoutMs = value === 2 ? 5000 : undefined;
        return {
          key: markData(key),
          value: markData(value),
          timeoutMs,
          comment: comment === null ? undefined : String(comment),
        };
      }),
    );
  const text = ({ key, value, timeoutMs, comment }: SetElement) =>
    JSON.stringify([key, value, timeoutMs, comment]);
  fc.assert(
    fc.property(elements, elements, fc.boolean(), (wanted, observed, isShared) => {
      // Sometimes the unchanged ones are the same objects.
      const known = new Map(observed.map((element) => [text(element), element]));
      const asked = isShared ? wanted.map((one) => known.get(text(one)) ?? one) : wanted;
      const { removed, added } = diffElements(asked, observed, undefined);
      const there = new Map(observed.map((element) => [String(element.key), element]));
      for (const element of removed) if (!there.delete(String(element.key))) return false;
      for (const element of added) {
        if (there.has(String(element.key))) return false;
        there.set(String(element.key), element);
      }
      const result = [...there.values()].map(text).sort().join('\n');
      return result === asked.map(text).sort().join('\n');
    }),
  );
  t.pass();
});

await t.test('touches nothing that stays', async (t) => {
  const elements = Array.from({ length: 20_000 }, (_, i) => ({ key: markData(i) }));
  const wanted = elements.filter((_, i) => i !== 100 && i !== 15_000);
  const { removed, added } = diffElements(wanted, elements, undefined);
  t.strictSame(removed, [elements[100], elements[15_000]]);
  t.strictSame(added, []);
  const copies = elements.map(({ key }) => ({ key: key.slice() }));
  t.strictSame(diffElements(copies, elements, undefined), { removed: [], added: [] });
});

await t.test('fits lists of elements into attributes', async (t) => {
  const set: SetDefinition = {
    name: 's'.repeat(200),
    key: ['ipv6_addr', 'ipv6_addr'],
    value: { type: 'verdict' },
  };
  const both = concatenate(address('fd00::1'), address('fd00::2'));
  const value = { type: 'goto', chain: 'c'.repeat(120) } as const;
  const large = Array.from({ length: 4000 }, () => ({
    key: both,
    value,
    comment: 'ö'.repeat(200),
  }));
  const small = Array.from({ length: 4000 }, (_, i) => ({ key: markData(i) }));
  t.strictSame(
    chunkElements(small, shapeOf({ name: 's', key: ['mark'] })).map(({ length }) => length),
    [1500, 1500, 1000],
  );
  const writer = new MessageWriter();
  for (const chunk of chunkElements(large, shapeOf(set))) {
    writeElements(writer, T, { name: set.name, shape: shapeOf(set) }, chunk, 'add');
    t.ok(writer.take().length < LARGEST_ATTRIBUTE);
  }
  t.strictSame(chunkElements(large, shapeOf(set)).flat(), large);
});

await t.test('reads ranges as they were written', async (t) => {
  const shape = shapeOf({ name: 's', key: ['ipv4_addr'], isInterval: true });
  const bounds = fc.uniqueArray(fc.oneof(fc.nat(0xffff_ffff), fc.nat(6)), { maxLength: 20 });
  fc.assert(
    fc.property(bounds, (numbers) => {
      const sorted = numbers.sort((a, b) => a - b);
      const elements: SetElement[] = [];
      for (let i = 0; i + 1 < sorted.length; i += 2) {
        elements.push({ key: bytesOf(sorted[i]!), lastKey: bytesOf(sorted[i + 1]!) });
      }
      const writer = new MessageWriter();
      writeElements(writer, T, { name: 's', shape }, elements, 'add');
      const [message] = readMessages(writer.take()).messages;
      const raw = decodeElements({ ...message!, type: (10 << 8) | 12 })!.elements;
      const read = assembleElements(raw.slice().reverse(), shape);
      const { removed, added } = diffElements(elements, read, undefined);
      return removed.length === 0 && added.length === 0;
    }),
  );
  t.pass();
});

await t.test('frames a batch, and asks for one answer', async (t) => {
  const writer = new MessageWriter();
  const requests = encodeRulesetChanges(plan(OLD, undefined), writer);
  const { messages, isWhole } = readMessages(joinBatch(requests, 50, 7, writer));
  t.ok(isWhole);
  t.strictSame([messages[0]!.type, messages.at(-1)!.type], [0x10, 0x11]);
  t.strictSame([...messages[0]!.body], [0, 0, 0, 10, 8, 0, 1, 0, 0, 0, 0, 7]);
  t.strictSame(
    messages.map(({ sequence }) => sequence),
    messages.map((_, i) => 50 + i),
  );
  const asking = messages.flatMap(({ flags }, i) => ((flags & 4) === 0 ? [] : [i]));
  t.strictSame(asking, [messages.length - 2]);
});

function plan(wanted: WantedTable, there: ObservedTable | undefined) {
  return planTable(prepareTable(wanted, new MessageWriter()), there);
}

function observed(wanted: WantedTable): ObservedTable {
  return observedAfter(prepareTable(wanted, new MessageWriter()));
}

function bytesOf(number: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, number);
  return bytes;
}
