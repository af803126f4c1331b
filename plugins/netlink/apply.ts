import { ipFamily } from '../../core/net/ip-address.ts';
import type { IpPrefix } from '../../core/net/ip-prefix.ts';
import {
  changedObject,
  planLink,
  type LinkChange,
  type ObservedLink,
  type RouteMarks,
} from '../../core/netlink/wanted-link.ts';
import type { RuleKey } from '../../core/netlink/rtnetlink/rule.ts';
import type { LinkFailure, Links, WantedLink } from '../../core/plugin/links.ts';
import { failed, ok } from '../../core/sansio/outcome.ts';
import type { Answer, Refusal } from './refusal.ts';

/** What `applyLink` needs of a kernel. */
export interface LinkKernel {
  /** Refused with ENODEV where there is no such interface. */
  observe(name: string): Answer<ObservedLink>;
  /** Carries out the changes in order. Returns why each was refused, `undefined` where it was not. */
  change(changes: readonly LinkChange[]): readonly (Refusal | undefined)[];
  /** Changes of ours to this link were made and are about to be read. */
  changed(link: number): void;
}

/**
 * Plans, changes and reads again until nothing differs, or until the kernel refuses all that is left.
 * What counts is what was read in the end: a refusal whose object is as wanted is none.
 */
export function applyLink(
  wanted: WantedLink,
  kernel: LinkKernel,
  marks: RouteMarks,
): ReturnType<Links['apply']> {
  const refusals = new Map<string, Refusal>();
  let changes = 0;
  for (let round = 1; ; round++) {
    const observed = kernel.observe(wanted.name);
    if (!observed.ok) return notObserved(wanted.name, observed.refusal);
    const plan = planLink(wanted, observed.value, marks);
    if (plan.length === 0 || round > MOST_ROUNDS) return conclude(plan, refusals, wanted, changes);

    const before = changes;
    for (let at = 0; at < plan.length; at += ABSORB_AFTER) {
      const together = plan.slice(at, at + ABSORB_AFTER);
      for (const [i, refusal] of kernel.change(together).entries()) {
        const change = together[i];
        if (refusal === undefined || change === undefined) changes++;
        else if (refusal.code === 'EPERM') return notPermitted(change, refusal);
        else refusals.set(keyOf(change), refusal);
      }
      kernel.changed(observed.value.link.index);
    }
    if (changes === before) return conclude(plan, refusals, wanted, changes);
  }
}

/** A change can undo an earlier one (the last address takes the routes along) once, not for ever. */
const MOST_ROUNDS = 4;

/** Changes between two looks at the monitor, so that ours alone do not overrun it. */
const ABSORB_AFTER = 256;

function notObserved(name: string, { code, message }: Refusal): ReturnType<Links['apply']> {
  const why = code === 'ENODEV' ? 'no-link' : code === 'EPERM' ? 'not-permitted' : 'refused';
  return { ...failed(why), failures: [{ object: `link ${name}`, code, message }] };
}

function notPermitted(change: LinkChange, { code, message }: Refusal): ReturnType<Links['apply']> {
  return {
    ...failed('not-permitted'),
    failures: [{ object: changedObject(change), code, message }],
  };
}

/** `left` is what was planned at last and is not there. */
function conclude(
  left: readonly LinkChange[],
  refusals: ReadonlyMap<string, Refusal>,
  wanted: WantedLink,
  changes: number,
): ReturnType<Links['apply']> {
  const due = left.filter((change) => !isDispensable(change, refusals.get(keyOf(change)), wanted));
  if (due.length === 0) return { ...ok({ changes }), failures: [] };
  const failures = due.map((change): LinkFailure => {
    const object = changedObject(change);
    const refusal = refusals.get(keyOf(change));
    if (refusal === undefined) {
      return { object, code: 'UNDONE', message: 'the kernel or another program undoes it' };
    }
    const { code, message } = refusal;
    return { object, code, message: explain(change, refusal, wanted) ?? message };
  });
  return { ...failed('refused'), failures };
}

/**
 * Default traffic is led in by the families that there are: without IPv6, on the machine or on the
 * interface, there is none to lead.
 */
function isDispensable(
  change: LinkChange,
  refusal: Refusal | undefined,
  { mtu }: WantedLink,
): boolean {
  if (refusal === undefined || !(NO_IPV6.has(refusal.code) || mtu < IPV6_MTU)) return false;
  if (change.type === 'add-rule') return change.rule.family === 6;
  if (change.type !== 'add-route') return false;
  const { address, length } = change.route.destination;
  return ipFamily(address) === 6 && length === 0;
}

/** Says in the words of the field what the kernel's errno leaves to guess. */
function explain(change: LinkChange, { code }: Refusal, wanted: WantedLink): string | undefined {
  if (change.type === 'add-rule') return explainRule(change.rule, code);
  const added = addedPrefix(change);
  if (added === undefined) return undefined;
  if (ipFamily(added.address) === 6) {
    if (NO_IPV6.has(code)) return `IPv6 is disabled on ${wanted.name}`;
    if (wanted.mtu < IPV6_MTU) return `IPv6 needs an MTU of ${IPV6_MTU}`;
  }
  if (change.type === 'add-route' && code === 'EEXIST') {
    return 'a route of another program is in its place';
  }
  return undefined;
}

function explainRule({ inputLink }: RuleKey, code: string): string | undefined {
  if (code === 'EOPNOTSUPP' || code === 'EAFNOSUPPORT') return 'the kernel has no policy routing';
  if (code === 'EEXIST') return 'a rule of another program is in its place';
  return code === 'ERANGE' ? `${inputLink} is not the name of an interface` : undefined;
}

/** RFC 8200 §5; the kernel takes IPv6 off an interface below it. */
const IPV6_MTU = 1280;

/** What a request gets where disable_ipv6 is set, and from a kernel without IPv6. */
const NO_IPV6 = new Set(['EACCES', 'EOPNOTSUPP', 'EAFNOSUPPORT']);

function addedPrefix(change: LinkChange): IpPrefix | undefined {
  if (change.type === 'add-address') return change.address.address;
  return change.type === 'add-route' ? change.route.destination : undefined;
}

function keyOf(change: LinkChange): string {
  return `${change.type} ${changedObject(change)}`;
}
