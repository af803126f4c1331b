import t from 'tap';
import type { Clock } from '../../core/plugin/clock.ts';
import type { PluginHost } from '../../core/plugin/plugin.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { createMemoryRuleset, MemoryTables } from '../../plugins/netlink/index.ts';
import { rulesetContract, type RulesetWorld } from '../contract/ruleset.ts';
import { address } from '../netns/nftables-rules.ts';

await rulesetContract(t, async () => memoryWorld());

function memoryWorld(): RulesetWorld {
  const kernel = new MemoryTables();
  const waiting: (() => void)[] = [];
  const plugin = createMemoryRuleset(kernel).create(hostWith((onYield) => waiting.push(onYield)));
  if ('skip' in plugin) throw new Error(plugin.skip);
  const lengths = (lists: ReadonlyMap<string, readonly unknown[]>) =>
    Object.fromEntries(Array.from(lists, ([name, list]) => [name, list.length]));
  return {
    ruleset: plugin.api,
    read(table) {
      const there = kernel.read(table);
      return there && { chains: lengths(there.chains), sets: lengths(there.sets) };
    },
    flush: () => kernel.flush(),
    addTable: (table) => kernel.addTable(table),
    addChain: (table, chain) => kernel.addChain(table, chain),
    addRule: (table, chain) => kernel.addRule(table, chain),
    addElement: (table, set, text) => kernel.addElement(table, set, { key: address(text) }),
    async settle() {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) next();
    },
    close: () => plugin.stop(),
  };
}

function hostWith(soon: Clock['soon']): PluginHost {
  const unused = () => {
    throw new Error('not used');
  };
  const clock = { now: unused, unixMs: unused, alarm: unused, cancelAlarm: unused, soon };
  return { log: nullLog, clock, use: unused };
}
