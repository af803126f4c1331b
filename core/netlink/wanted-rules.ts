import type { IpFamily } from '../net/ip-address.ts';
import type { WantedLink } from '../plugin/links.ts';
import { RouteTable } from './rtnetlink/constants.ts';
import type { Rule, RuleKey } from './rtnetlink/rule.ts';

/** What tells our rules from those of other programs, and where they lead. */
export interface RuleMarks {
  /** The protocol number, 128 to 254: it marks a route or a rule as made by us. */
  readonly protocol: number;
  /** The table of the default routes into our interface, which only our rules look into. */
  readonly defaultTable: number;
}

/**
 * Of the rule that lets specific routes win; the one into our table comes next. Right before the main table
 * (32766), as this is about what it would send to the Internet, and behind the rules with which other
 * programs pick packets: mwan3 from 1001, Tailscale from 5210, netifd 10000 and 20000, pbr up to 30000.
 */
export const RULE_PRIORITY = 32_680;

/** One step towards the wanted rules; one request to the kernel. */
export interface RuleChange {
  readonly type: 'add-rule' | 'remove-rule';
  readonly rule: RuleKey;
}

/**
 * Returns what leads from the observed to the wanted rules of both families. Ours are told by their
 * protocol number, whatever else they say, so what an earlier run left behind goes too. An equal rule of
 * another program serves as well, and the kernel would refuse ours beside it.
 */
export function planRules(
  wanted: Pick<WantedLink, 'name' | 'defaultFor'>,
  observed: readonly Rule[],
  marks: RuleMarks,
): readonly RuleChange[] {
  const missing = new Map(wantedRules(wanted, marks).map((rule) => [formatRule(rule), rule]));
  const removals: RuleChange[] = [];
  for (const rule of observed.filter(({ protocol }) => protocol === marks.protocol)) {
    const isWanted = rule.isPlain && missing.delete(formatRule(rule));
    if (!isWanted) removals.push({ type: 'remove-rule', rule });
  }
  for (const rule of observed.filter(({ isPlain }) => isPlain)) missing.delete(formatRule(rule));
  const additions = Array.from(missing.values(), (rule): RuleChange => ({
    type: 'add-rule',
    rule,
  }));
  // What lets specific routes win comes first and goes last.
  return [...additions, ...removals.reverse()];
}

/** Returns the rule the way `ip rule` words it: `IPv4 rule 32681 iif br-lan lookup 2680`. */
export function formatRule(rule: RuleKey): string {
  const { family, priority, inputLink, table, suppressPrefixLength } = rule;
  const from = inputLink === undefined ? '' : ` iif ${inputLink}`;
  const unless =
    suppressPrefixLength === undefined ? '' : ` suppress_prefixlength ${suppressPrefixLength}`;
  return `IPv${family} rule ${priority}${from} lookup ${table}${unless}`;
}

function wantedRules(
  { name, defaultFor }: Pick<WantedLink, 'name' | 'defaultFor'>,
  { protocol, defaultTable }: RuleMarks,
): readonly RuleKey[] {
  // What came out of the tunnel must not go in again, and `iif lo` would be what this machine sends itself.
  const inputs = defaultFor.filter((input) => input !== name && input !== LOOPBACK);
  return FAMILIES.flatMap((family) =>
    inputs.flatMap((inputLink): readonly RuleKey[] => [
      {
        family,
        priority: RULE_PRIORITY,
        inputLink,
        table: RouteTable.main,
        suppressPrefixLength: 0,
        protocol,
      },
      {
        family,
        priority: RULE_PRIORITY + 1,
        inputLink,
        table: defaultTable,
        suppressPrefixLength: undefined,
        protocol,
      },
    ]),
  );
}

const LOOPBACK = 'lo';
const FAMILIES: readonly IpFamily[] = [4, 6];
