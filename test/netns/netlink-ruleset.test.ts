import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { concatenate, serviceData } from '../../core/netlink/nftables/data-type.ts';
import type { SetElement } from '../../core/netlink/nftables/element.ts';
import type { TableKey } from '../../core/netlink/nftables/table.ts';
import type { WantedTable } from '../../core/netlink/nftables/wanted-ruleset.ts';
import type { Native } from '../../core/plugin/native.ts';
import { createRuleset, Nftables } from '../../plugins/netlink/index.ts';
import { rulesetContract, type RulesetWorld } from '../contract/ruleset.ts';
import { hostOf, inNamespace, loadSystemCalls, run, turns } from './netlink-namespace.ts';
import { address, EVERYTHING } from './nftables-rules.ts';

/** Lines of `nft list`, a part of what `EVERYTHING` has. */
const LISTED = [
  'comment "made by a test"',
  'policy = { unreplied : 10, replied : 20 }',
  'elements = { 10.0.0.0/8, 11.0.0.0/8 comment "the next one",',
  'elements = { tcp . 80-90,',
  'elements = { 10.0.0.1 . 53 comment "db.internal" : 10.0.0.2 . 5353 }',
  'type ipv4_addr : interval ipv4_addr',
  'elements = { 10.1.0.0/16 : 10.2.0.0/16 }',
  '0x00000001 : accept, 0x00000002 : jump common, 0x00000003 : goto common',
  'udp dport 51820 @th,64,8 < 0x2 @th,96,32 0x2112a442 notrack udp dport set 3478 comment "stun #',
  'ip saddr @nets counter packets 0 bytes 0 drop',
  'ct state established,related accept',
  'iifname "wg*" accept',
  'meta l4proto . th dport @services accept',
  'meta mark vmap @decisions',
  'fib daddr type local accept',
  'limit rate 5/second burst 10 packets log prefix "a " level info',
  'ip saddr 10.0.0.0/9 accept',
  'ct timeout set "dns"',
  'counter name "seen"',
  'icmp type echo-request accept',
  'tcp flags syn / syn,rst tcp option maxseg size set rt mtu',
  'reject with icmpx admin-prohibited',
  'oifname "eth0" masquerade random,persistent',
  'ip6 saddr fd00::/64 snat ip6 prefix to fd01::/64',
  'snat ip prefix to ip saddr map @sites',
  'dnat ip to ip daddr . udp dport map @names',
  'dnat ip6 to ip6 saddr . ip6 daddr map @proxies',
  'udp dport 53 redirect to :5353',
];

/** Of a changed element; an even number. */
const SAMPLES = 64;

const OWNER = new URL('netlink-owner.ts', import.meta.url).pathname;

if (await inNamespace(import.meta.url)) await test(await loadSystemCalls());

async function test(calls: Native): Promise<void> {
  await rulesetContract(t, async () => kernelWorld(calls));

  await t.test('writes everything so that nft reads it, and reads it back', async (t) => {
    const plugin = open(calls);
    t.match(plugin.api.apply([EVERYTHING]), { ok: true, failures: [] });
    const listed = run('nft', 'list', 'table', 'inet', 'everything');
    for (const line of LISTED) t.ok(listed.includes(line), line);

    const reader = Nftables.open(calls);
    if (!reader.ok) throw new Error(reader.refusal.message);
    const rules = reader.value.readRules(EVERYTHING);
    if (!rules.ok) throw new Error(rules.refusal.message);
    for (const { name, rules: wanted } of EVERYTHING.chains) {
      const read = rules.value.filter(({ chain }) => chain === name);
      t.strictSame(
        read.map(({ expressions }) => expressions),
        wanted.map(({ expressions }) => expressions),
        `the rules of ${name}`,
      );
    }
    t.equal(reader.value.stats.malformed, 0);
    reader.value.close();

    const restarted = open(calls);
    t.strictSame(
      restarted.api.apply([EVERYTHING]),
      { ok: true, value: { changes: 0 }, failures: [] },
      'after a restart there is nothing to do',
    );
    await restarted.stop();
    plugin.api.clear([EVERYTHING]);
    await plugin.stop();
  });

  await t.test('points at the element that overlaps', async (t) => {
    const plugin = open(calls);
    const wanted = mapTable(more(2000));
    t.match(plugin.api.apply([wanted]), { ok: true });
    const twice = { ...more(1000)[999]!, value: address('192.0.2.1') };
    const result = plugin.api.apply([mapTable([...more(4000), twice])]);
    t.match(result, {
      ok: false,
      failures: [
        {
          object: 'element 100.96.3.231 . 443 of map inet big names',
          code: 'EEXIST',
          message: 'it overlaps another element',
        },
      ],
    });
    plugin.api.clear([wanted]);
    await plugin.stop();
  });

  await t.test('a table with an owner is safe from others and goes with the socket', async (t) => {
    const plugin = open(calls);
    const owned: WantedTable = { family: 'inet', name: 'owned', isOwned: true, chains: [] };
    t.match(plugin.api.apply([owned]), { ok: true });
    t.match(plugin.api.apply([owned]), { ok: true, value: { changes: 0 } });
    t.throws(() => run('nft', 'delete', 'table', 'inet', 'owned'));
    const other = open(calls);
    const changed = { ...owned, chains: [{ name: 'a', rules: [] }] };
    t.match(other.api.apply([changed]), {
      ok: false,
      failures: [{ code: 'EPERM', message: 'the table belongs to another program' }],
    });
    await other.stop();
    t.match(plugin.api.apply([changed]), { ok: true });
    await plugin.stop();
    t.notOk(run('nft', 'list', 'tables').includes('owned'));
  });

  await t.test('a table with an owner goes when the process is killed', async (t) => {
    const child = spawn(process.execPath, [...process.execArgv, OWNER], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    t.ok(run('nft', 'list', 'tables').includes('owned'));
    child.kill('SIGKILL');
    await once(child, 'exit');
    t.notOk(run('nft', 'list', 'tables').includes('owned'));
  });

  await t.test('takes over a table that has no owner yet', async (t) => {
    run('nft', 'add', 'table', 'inet', 'owned');
    const plugin = open(calls);
    const owned: WantedTable = { family: 'inet', name: 'owned', isOwned: true, chains: [] };
    t.match(plugin.api.apply([owned]), { ok: true });
    t.throws(() => run('nft', 'delete', 'table', 'inet', 'owned'));
    await plugin.stop();
  });

  await t.test('changes one of 20,000 elements by one message', async (t) => {
    const plugin = open(calls);
    const elements = more(20_000);
    const before = performance.now();
    t.match(plugin.api.apply([mapTable(elements)]), { ok: true });
    const all = performance.now() - before;

    let changed = elements.slice();
    const took: number[] = [];
    for (let i = 0; i < SAMPLES; i++) {
      changed = changed.slice();
      changed[10_000 + i] = { ...changed[10_000 + i]!, value: address('192.0.2.1') };
      const start = performance.now();
      const result = plugin.api.apply([mapTable(changed)]);
      took.push(performance.now() - start);
      t.match(result, { ok: true, value: { changes: 2 } }, 'two lists of elements');
    }
    // The first ones wait for the compiler of Node.js.
    const one = took.sort((a, b) => a - b)[SAMPLES / 2] ?? 0;
    const again = performance.now();
    t.match(plugin.api.apply([mapTable(changed)]), { ok: true, value: { changes: 0 } });
    const none = performance.now() - again;

    const file = join(tmpdir(), `culvert-${process.pid}.nft`);
    writeFileSync(
      file,
      run('nft', 'list', 'table', 'inet', 'big').replaceAll('inet big', 'inet big2'),
    );
    const spawned = performance.now();
    run('nft', '-f', file);
    const nft = performance.now() - spawned;
    t.comment(
      `20,000 elements: ${all.toFixed(1)} ms (nft -f: ${nft.toFixed(1)} ms), ` +
        `one changed: ${one.toFixed(2)} ms (median), none: ${none.toFixed(2)} ms`,
    );
    const restarted = open(calls);
    const fresh = performance.now();
    t.match(restarted.api.apply([mapTable(changed)]), { ok: true, value: { changes: 0 } });
    t.comment(`read back and compared: ${(performance.now() - fresh).toFixed(1)} ms`);
    await restarted.stop();
    run('nft', 'delete', 'table', 'inet', 'big2');
    plugin.api.clear([mapTable([])]);
    await plugin.stop();
  });

  await t.test('sets a timeout again when the element has vanished', async (t) => {
    const plugin = open(calls);
    const wanted: WantedTable = {
      family: 'inet',
      name: 'timed',
      sets: [
        {
          name: 'guests',
          key: ['ipv4_addr'],
          hasTimeouts: true,
          elements: [{ key: address('192.0.2.1'), timeoutMs: 600_000 }],
        },
      ],
      chains: [],
    };
    t.match(plugin.api.apply([wanted]), { ok: true });
    t.match(plugin.api.apply([wanted]), { ok: true, value: { changes: 0 } });
    run('nft', 'flush', 'set', 'inet', 'timed', 'guests');
    t.match(plugin.api.apply([wanted]), { ok: true, value: { changes: 1 } });
    plugin.api.clear([wanted]);
    await plugin.stop();
  });
}

function mapTable(elements: readonly SetElement[]): WantedTable {
  return {
    family: 'inet',
    name: 'big',
    sets: [
      {
        name: 'names',
        key: ['ipv4_addr', 'inet_service'],
        value: { type: 'data', fields: ['ipv4_addr'] },
        elements,
      },
    ],
    chains: [],
  };
}

function more(count: number): readonly SetElement[] {
  return Array.from({ length: count }, (_, i) => ({
    key: concatenate(address(`100.96.${i >> 8}.${i & 255}`), serviceData(443)),
    value: address(`10.9.${i >> 8}.${i & 255}`),
  }));
}

function open(calls: Native) {
  const plugin = createRuleset().create(hostOf(calls));
  if ('skip' in plugin) throw new Error(plugin.skip);
  return plugin;
}

interface Listed {
  readonly nftables: readonly {
    readonly table?: TableKey;
    readonly chain?: { readonly table: string; readonly name: string };
    readonly rule?: { readonly chain: string };
    readonly set?: { readonly name: string; readonly elem?: readonly unknown[] };
    readonly map?: { readonly name: string; readonly elem?: readonly unknown[] };
  }[];
}

function kernelWorld(calls: Native): RulesetWorld {
  const plugin = open(calls);
  const nft = (...words: string[]) => void run('nft', ...words);
  return {
    ruleset: plugin.api,
    read({ family, name }) {
      const tables = (JSON.parse(run('nft', '-j', 'list', 'tables')) as Listed).nftables;
      if (!tables.some(({ table }) => table?.family === family && table.name === name)) {
        return undefined;
      }
      const listed = run('nft', '-j', 'list', 'table', family, name);
      const rows = (JSON.parse(listed) as Listed).nftables;
      const chains = rows.flatMap(({ chain }) => (chain === undefined ? [] : [chain.name]));
      const sets = rows.flatMap(({ set, map }) => set ?? map ?? []);
      return {
        chains: Object.fromEntries(
          chains.map((name) => [name, rows.filter(({ rule }) => rule?.chain === name).length]),
        ),
        sets: Object.fromEntries(sets.map(({ name, elem }) => [name, elem?.length ?? 0])),
      };
    },
    flush: () => nft('flush', 'ruleset'),
    addTable: ({ family, name }) => nft('add', 'table', family, name),
    addChain: ({ family, name }, chain) => nft('add', 'chain', family, name, chain),
    addRule: ({ family, name }, chain) => nft('add', 'rule', family, name, chain, 'accept'),
    addElement({ family, name }, set, element) {
      nft('add', 'element', family, name, set, `{ ${element} }`);
    },
    settle: turns,
    async close() {
      await plugin.stop();
      nft('flush', 'ruleset');
    },
  };
}
