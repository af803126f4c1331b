import type { Test } from 'tap';
import { Priority } from '../../core/netlink/nftables/chain.ts';
import { destinationPort, field, isFamily, isIn } from '../../core/netlink/nftables/match.ts';
import { accept, drop, jump, leave, named, rule } from '../../core/netlink/nftables/statement.ts';
import type { TableKey } from '../../core/netlink/nftables/table.ts';
import type { WantedTable } from '../../core/netlink/nftables/wanted-ruleset.ts';
import type { Ruleset } from '../../core/plugin/ruleset.ts';
import { address, range } from '../netns/nftables-rules.ts';

/** A kernel with tables, what other programs do to it, and a view that does not use our codecs. */
export interface RulesetWorld {
  readonly ruleset: Ruleset;
  /** `undefined` where there is no such table. */
  readonly read: (table: TableKey) => TableView | undefined;
  /** The acts of another program. */
  readonly flush: () => void;
  readonly addTable: (table: TableKey) => void;
  readonly addChain: (table: TableKey, chain: string) => void;
  readonly addRule: (table: TableKey, chain: string) => void;
  readonly addElement: (table: TableKey, set: string, address: string) => void;
  /** Waits until what happened before has been told to monitors. */
  readonly settle: () => Promise<void>;
  readonly close: () => void | Promise<void>;
}

export interface TableView {
  /** The number of rules of each chain. */
  readonly chains: Readonly<Record<string, number>>;
  /** The number of elements of each set and map. */
  readonly sets: Readonly<Record<string, number>>;
}

const TABLE: TableKey = { family: 'inet', name: 'culvert' };
const OTHER: TableKey = { family: 'ip', name: 'firewall' };

const WANTED: WantedTable = {
  ...TABLE,
  sets: [
    {
      name: 'blocked',
      key: ['ipv4_addr'],
      elements: ['192.0.2.1', '192.0.2.2', '192.0.2.3'].map((text) => ({ key: address(text) })),
    },
    { name: 'nets', key: ['ipv4_addr'], isInterval: true, elements: [range('10.0.0.0/8')] },
  ],
  chains: [
    { name: 'common', rules: [rule(leave)] },
    {
      name: 'forwarded',
      base: { type: 'filter', hook: 'forward', priority: Priority.filter },
      rules: [
        named('blocked', isFamily(4), isIn('blocked', field.ipDestination), drop),
        rule(isFamily(4), isIn('nets', field.ipDestination), jump('common')),
        rule(destinationPort(6, 80), accept),
      ],
    },
  ],
};

const VIEW: TableView = { chains: { common: 1, forwarded: 3 }, sets: { blocked: 3, nets: 1 } };

/** What every implementation of `Ruleset` does. */
export async function rulesetContract(t: Test, open: () => Promise<RulesetWorld>): Promise<void> {
  const inWorld = async (
    title: string,
    run: (t: Test, world: RulesetWorld) => void | Promise<void>,
  ) => {
    await t.test(title, async (t) => {
      const world = await open();
      try {
        await run(t, world);
      } finally {
        world.ruleset.clear([TABLE]);
        await world.close();
      }
    });
  };

  await inWorld('makes what is wanted, once', (t, { ruleset, read }) => {
    t.match(ruleset.apply([WANTED]), { ok: true, failures: [] });
    t.strictSame(read(TABLE), VIEW);
    t.strictSame(ruleset.apply([WANTED]), { ok: true, value: { changes: 0 }, failures: [] });
  });

  await inWorld('changes one element with one message', (t, { ruleset, read }) => {
    ruleset.apply([WANTED]);
    const [blocked, ...others] = WANTED.sets!;
    const more = [...blocked!.elements!, { key: address('192.0.2.4') }];
    const sets = [{ ...blocked!, elements: more }, ...others];
    t.match(ruleset.apply([{ ...WANTED, sets }]), { ok: true, value: { changes: 1 } });
    t.equal(read(TABLE)?.sets['blocked'], 4);
    const fewer = [{ ...blocked!, elements: more.slice(1) }, ...others];
    t.match(ruleset.apply([{ ...WANTED, sets: fewer }]), { ok: true, value: { changes: 1 } });
    t.equal(read(TABLE)?.sets['blocked'], 3);
  });

  await inWorld('refills a chain of which a rule changed, and no other', (t, { ruleset, read }) => {
    ruleset.apply([WANTED]);
    const [common, forwarded] = WANTED.chains;
    const chains = [common!, { ...forwarded!, rules: forwarded!.rules.slice(0, 2) }];
    // One message that flushes, and two rules.
    t.match(ruleset.apply([{ ...WANTED, chains }]), { ok: true, value: { changes: 3 } });
    t.strictSame(read(TABLE)?.chains, { common: 1, forwarded: 2 });
  });

  await inWorld('removes what is not wanted any more', (t, { ruleset, read }) => {
    ruleset.apply([WANTED]);
    t.match(ruleset.apply([{ ...TABLE, chains: [{ name: 'common', rules: [] }] }]), { ok: true });
    t.strictSame(read(TABLE), { chains: { common: 0 }, sets: {} });
  });

  await inWorld('removes a table that is to be absent, and no other', (t, world) => {
    const { ruleset, read } = world;
    world.addTable(OTHER);
    const absent: WantedTable = { ...TABLE, isAbsent: true, chains: [] };
    t.match(ruleset.apply([absent]), { ok: true, value: { changes: 0 } });
    ruleset.apply([WANTED]);
    t.match(ruleset.apply([absent]), { ok: true, value: { changes: 1 }, failures: [] });
    t.equal(read(TABLE), undefined);
    t.match(ruleset.apply([absent]), { ok: true, value: { changes: 0 } });
    world.addTable(TABLE);
    t.match(ruleset.apply([absent]), { ok: true, value: { changes: 1 } }, 'though another made it');
    t.strictSame(read(OTHER), { chains: {}, sets: {} });
    t.match(ruleset.apply([WANTED]), { ok: true, failures: [] });
    t.strictSame(read(TABLE), VIEW);
  });

  await inWorld('replaces a table whose chain moves to another hook', (t, { ruleset, read }) => {
    ruleset.apply([WANTED]);
    const [common, forwarded] = WANTED.chains;
    const base = { type: 'filter', hook: 'input', priority: Priority.filter } as const;
    const moved = { ...WANTED, chains: [common!, { ...forwarded!, base }] };
    t.match(ruleset.apply([moved]), { ok: true });
    t.strictSame(read(TABLE), VIEW);
    t.match(ruleset.apply([moved]), { ok: true, value: { changes: 0 } });
  });

  await inWorld('changes a policy in place', (t, { ruleset }) => {
    ruleset.apply([WANTED]);
    const [common, forwarded] = WANTED.chains;
    const strict = { ...forwarded!, base: { ...forwarded!.base!, policy: 'drop' } as const };
    const wanted = { ...WANTED, chains: [common!, strict] };
    t.match(ruleset.apply([wanted]), { ok: true, value: { changes: 1 } });
  });

  await inWorld('keeps its hands off the tables of others', (t, world) => {
    const { ruleset, read } = world;
    world.addTable(OTHER);
    world.addChain(OTHER, 'theirs');
    ruleset.apply([WANTED]);
    ruleset.clear([TABLE]);
    t.equal(read(TABLE), undefined);
    t.strictSame(read(OTHER), { chains: { theirs: 0 }, sets: {} });
  });

  await inWorld('undoes what others did to its tables', (t, world) => {
    const { ruleset, read } = world;
    ruleset.apply([WANTED]);
    world.addChain(TABLE, 'theirs');
    world.addRule(TABLE, 'theirs');
    world.addRule(TABLE, 'common');
    world.addElement(TABLE, 'blocked', '203.0.113.9');
    t.match(ruleset.apply([WANTED]), { ok: true });
    t.strictSame(read(TABLE), VIEW);
    t.match(ruleset.apply([WANTED]), { ok: true, value: { changes: 0 } });
  });

  await inWorld('notices that everything was flushed, and makes it again', async (t, world) => {
    const { ruleset, read } = world;
    ruleset.apply([WANTED]);
    let told = 0;
    const end = ruleset.monitor(() => {
      told++;
      ruleset.apply([WANTED]);
    });
    await world.settle();
    t.equal(told, 0, 'what it did itself is not foreign');
    world.flush();
    await world.settle();
    t.equal(told, 1);
    t.strictSame(read(TABLE), VIEW);
    end();
    world.flush();
    await world.settle();
    t.equal(told, 1, 'and not after it was told to stop');
  });

  await inWorld(
    'hears of a foreign change that came just before one of its own',
    async (t, world) => {
      const { ruleset } = world;
      ruleset.apply([WANTED]);
      let told = 0;
      const end = ruleset.monitor(() => told++);
      world.addTable(OTHER);
      ruleset.apply([{ ...WANTED, sets: WANTED.sets!.slice(), chains: [...WANTED.chains] }]);
      await world.settle();
      t.equal(told, 1);
      end();
    },
  );

  await inWorld(
    'reports each thing that is refused, and changes nothing',
    (t, { ruleset, read }) => {
      ruleset.apply([WANTED]);
      const [common, forwarded] = WANTED.chains;
      const rules = [
        rule(jump('nowhere')),
        rule(accept),
        named('second', isIn('nothing', field.ipSource), drop),
      ];
      const result = ruleset.apply([{ ...WANTED, chains: [{ ...common!, rules }, forwarded!] }]);
      t.match(result, {
        ok: false,
        why: 'refused',
        failures: [
          { object: 'rule 1 of chain inet culvert common', code: 'ENOENT' },
          { object: 'rule 3 (second) of chain inet culvert common', code: 'ENOENT' },
        ],
      });
      t.equal(result.failures.length, 2);
      t.strictSame(read(TABLE), VIEW);
      t.match(ruleset.apply([WANTED]), { ok: true, value: { changes: 0 } });
    },
  );

  await inWorld(
    'removes tables that are there, and does not mind others',
    (t, { ruleset, read }) => {
      ruleset.apply([WANTED]);
      ruleset.clear([TABLE, { family: 'ip6', name: 'nothing' }]);
      t.equal(read(TABLE), undefined);
      ruleset.clear([TABLE]);
    },
  );

  await inWorld('makes several tables at once, or none', (t, { ruleset, read }) => {
    const good: WantedTable = { family: 'ip', name: 'culvert', chains: [] };
    const bad: WantedTable = { ...TABLE, chains: [{ name: 'a', rules: [rule(jump('nowhere'))] }] };
    t.match(ruleset.apply([good, bad]), { ok: false });
    t.equal(read(good), undefined);
    t.match(ruleset.apply([good, { ...bad, chains: [] }]), { ok: true });
    t.strictSame(read(good), { chains: {}, sets: {} });
    ruleset.clear([good]);
  });
}
