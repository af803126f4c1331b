import t from 'tap';
import type { RulesetChange } from '../../core/netlink/nftables/ruleset-plan.ts';
import { jump, rule } from '../../core/netlink/nftables/statement.ts';
import type { WantedTable } from '../../core/netlink/nftables/wanted-ruleset.ts';
import { markData } from '../../core/netlink/nftables/data-type.ts';
import { RulesetState, type CommitResult } from '../../plugins/netlink/apply-ruleset.ts';
import { MemoryTables } from '../../plugins/netlink/index.ts';
import { ownRefusal } from '../../plugins/netlink/refusal.ts';

const T: WantedTable = {
  family: 'inet',
  name: 't',
  sets: [{ name: 's', key: ['mark'], elements: [{ key: markData(1) }] }],
  chains: [],
};

/** Tables whose transactions can be meddled with, and which count what is read of them. */
class Meddled extends MemoryTables {
  reads = 0;
  before: (changes: readonly RulesetChange[]) => CommitResult | void = () => undefined;

  override observe(...parameters: Parameters<MemoryTables['observe']>) {
    this.reads++;
    return super.observe(...parameters);
  }

  override commit(changes: readonly RulesetChange[], generation: number): CommitResult {
    return this.before(changes) ?? super.commit(changes, generation);
  }
}

await t.test('reads again when another program was faster', async (t) => {
  const { kernel, state, told } = open();
  let times = 3;
  kernel.before = () => {
    if (times-- > 0) kernel.addTable({ family: 'ip', name: 'theirs' });
  };
  t.match(state.apply([T]), { ok: true });
  t.equal(kernel.read(T)?.sets.get('s')?.length, 1);
  t.equal(kernel.reads, 4);
  t.equal(told.count, 3);
});

await t.test('gives up when another program always is', async (t) => {
  const { kernel, state } = open();
  kernel.before = () => kernel.addTable({ family: 'ip', name: 'theirs' });
  t.match(state.apply([T]), { ok: false, why: 'refused', failures: [{ code: 'UNDONE' }] });
});

await t.test('reads nothing that it knows', async (t) => {
  const { kernel, state } = open();
  state.apply([T]);
  t.equal(kernel.reads, 1);
  const [set] = T.sets!;
  const more = { ...set!, elements: [...set!.elements!, { key: markData(2) }] };
  t.match(state.apply([{ ...T, sets: [more] }]), { value: { changes: 1 } });
  t.match(state.apply([{ ...T, sets: [more] }]), { value: { changes: 0 } });
  t.equal(kernel.reads, 1);
  kernel.addElement(T, 's', { key: markData(3) });
  t.match(state.apply([{ ...T, sets: [more] }]), { value: { changes: 1 } });
  t.equal(kernel.reads, 2);
  t.equal(kernel.read(T)?.sets.get('s')?.length, 2);
});

await t.test('reads all again after it could not know how a transaction ended', async (t) => {
  const { kernel, state } = open();
  state.apply([T]);
  const refusal = ownRefusal('ENOBUFS', 'no buffer space available');
  kernel.before = () => ({ type: 'failed', refusal });
  const empty = { ...T, sets: [] };
  t.match(state.apply([empty]), { ok: false, failures: [{ object: 'ruleset', code: 'ENOBUFS' }] });
  kernel.before = () => undefined;
  t.match(state.apply([empty]), { ok: true, value: { changes: 1 } });
  t.equal(kernel.reads, 2);
});

await t.test('says when it may not', async (t) => {
  const { kernel, state } = open();
  kernel.before = () => ({ type: 'failed', refusal: ownRefusal('EPERM', 'not permitted') });
  t.match(state.apply([T]), { ok: false, why: 'not-permitted' });
});

await t.test('names the first of very many refusals', async (t) => {
  const { state } = open();
  const rules = Array.from({ length: 100 }, () => rule(jump('nowhere')));
  const result = state.apply([{ ...T, chains: [{ name: 'a', rules }] }]);
  t.equal(result.failures.length, 64);
  t.match(result.failures[0], { object: 'rule 1 of chain inet t a', code: 'ENOENT' });
});

function open() {
  const kernel = new Meddled();
  const told = { count: 0 };
  const state = new RulesetState(kernel, () => told.count++);
  return { kernel, state, told };
}
