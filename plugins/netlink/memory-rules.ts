import { RouteTable } from '../../core/netlink/rtnetlink/constants.ts';
import type { Rule, RuleKey } from '../../core/netlink/rtnetlink/rule.ts';
import { formatRule, type RuleChange } from '../../core/netlink/wanted-rules.ts';
import { ownRefusal, type Refusal } from './refusal.ts';

/** Rules of policy routing in memory, in the order in which they are asked. */
export class MemoryRules {
  #rules: readonly Rule[] = ([4, 6] as const).flatMap((family) => [
    kernelRule({ family, priority: 0, table: RouteTable.local }),
    kernelRule({ family, priority: 32_766, table: RouteTable.main }),
  ]);

  all(): readonly Rule[] {
    return this.#rules;
  }

  change({ type, rule }: RuleChange): Refusal | undefined {
    return type === 'add-rule' ? this.#add(rule) : this.#remove(rule);
  }

  #add(rule: RuleKey): Refusal | undefined {
    if (new TextEncoder().encode(rule.inputLink).length > LONGEST_NAME) {
      return ownRefusal('ERANGE', 'numerical result out of range');
    }
    if (this.#rules.some((other) => formatRule(other) === formatRule(rule))) {
      return ownRefusal('EEXIST', 'file exists');
    }
    const rules = [...this.#rules, { ...rule, isPlain: true }];
    this.#rules = rules.sort((a, b) => a.priority - b.priority);
    return undefined;
  }

  #remove(rule: RuleKey): Refusal | undefined {
    const text = formatRule(rule);
    const index = this.#rules.findIndex(
      (other) => formatRule(other) === text && other.protocol === rule.protocol,
    );
    if (index < 0) return ownRefusal('ENOENT', 'no such file or directory');
    this.#rules = this.#rules.filter((_, position) => position !== index);
    return undefined;
  }
}

/** Bytes of the name of an interface. */
const LONGEST_NAME = 15;

function kernelRule(rule: Pick<RuleKey, 'family' | 'priority' | 'table'>): Rule {
  const protocol = 2;
  return {
    ...rule,
    inputLink: undefined,
    suppressPrefixLength: undefined,
    protocol,
    isPlain: true,
  };
}
