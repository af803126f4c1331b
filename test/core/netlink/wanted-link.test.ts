import t from 'tap';
import { networkOf, parseInterfaceAddress } from '../../../core/net/ip-prefix.ts';
import { parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';
import type { LinkAddress } from '../../../core/netlink/rtnetlink/address.ts';
import { readMessages } from '../../../core/netlink/message.ts';
import { decodeAddress } from '../../../core/netlink/rtnetlink/address.ts';
import { decodeRoute, type Route } from '../../../core/netlink/rtnetlink/route.ts';
import { decodeRule, type Rule } from '../../../core/netlink/rtnetlink/rule.ts';
import {
  changedObject,
  encodeLinkChanges,
  planClearing,
  planLink,
  type LinkChange,
  type ObservedLink,
} from '../../../core/netlink/wanted-link.ts';
import { planRules } from '../../../core/netlink/wanted-rules.ts';
import type { WantedLink } from '../../../core/plugin/links.ts';

const MARKS = { protocol: 186, table: 254, defaultTable: 2680 };
const INDEX = 6;
const NOTHING: WantedLink = {
  name: 'culvert0',
  mtu: 1408,
  addresses: [],
  routes: [],
  defaultFor: [],
};

await t.test('plans nothing where all is as wanted', async (t) => {
  const observed = seen(['10.1.0.1/24', 'fe80::1/64'], ['10.10.0.0/16']);
  t.strictSame(plan(['10.1.0.1/24'], ['10.10.0.0/16'], observed), []);
});

await t.test('sets the MTU, then the interface up, then addresses, then routes', async (t) => {
  const observed = seen([], []);
  const down = { ...observed, link: { ...observed.link, mtu: 1500, isUp: false } };
  t.strictSame(plan(['10.1.0.1/24'], ['10.10.0.0/16'], down), [
    'set-mtu mtu 1408',
    'set-up link',
    'add-address address 10.1.0.1/24',
    'add-route route 10.10.0.0/16',
  ]);
});

await t.test('makes before it breaks', async (t) => {
  const observed = seen(['10.1.0.1/32', 'fd00::1/128'], ['10.0.0.0/8']);
  t.strictSame(plan(['10.1.0.2/32', 'fd00::2/128'], ['10.0.0.0/9', '10.128.0.0/9'], observed), [
    'add-address address 10.1.0.2/32',
    'add-address address fd00::2/128',
    'remove-address address 10.1.0.1/32',
    'remove-address address fd00::1/128',
    'add-route route 10.0.0.0/9',
    'add-route route 10.128.0.0/9',
    'remove-route route 10.0.0.0/8',
  ]);
});

await t.test('breaks before it makes where the kernel cannot have both', async (t) => {
  const observed = seen(['10.1.0.1/24', 'fd00::1/64', '10.3.0.1/24'], []);
  t.strictSame(plan(['10.1.0.2/24', 'fd00::1/48'], [], observed), [
    'remove-address address 10.1.0.1/24',
    'remove-address address fd00::1/64',
    'add-address address 10.1.0.2/24',
    'add-address address fd00::1/48',
    'remove-address address 10.3.0.1/24',
  ]);
  const gateway = ip('10.1.0.9');
  const indirect = { ...route('10.10.0.0/16'), nextHops: [{ link: INDEX, gateway, weight: 1 }] };
  t.strictSame(plan([], ['10.10.0.0/16'], { ...seen([], []), routes: [indirect] }), [
    'remove-route route 10.10.0.0/16',
    'add-route route 10.10.0.0/16',
  ]);
});

await t.test('asks once for what is wanted twice, host bits or not', async (t) => {
  t.strictSame(
    plan(['10.1.0.1/24', '10.1.0.1/24'], ['10.10.0.0/16', '10.10.7.7/16'], seen([], [])),
    ['add-address address 10.1.0.1/24', 'add-route route 10.10.0.0/16'],
  );
});

await t.test('keeps one of two routes of ours', async (t) => {
  const twice = [route('10.10.0.0/16'), { ...route('10.10.0.0/16'), metric: 7 }];
  const changes = planLink(
    { ...NOTHING, routes: [prefix('10.10.0.0/16')] },
    { ...seen([], []), routes: twice },
    MARKS,
  );
  t.match(changes, [{ type: 'remove-route', route: { metric: 7 } }]);
  t.equal(changes.length, 1);
});

await t.test('leaves multipath routes, caches and other protocols alone', async (t) => {
  const hop = { link: INDEX, gateway: undefined, weight: 1 };
  const observed = {
    ...seen([], []),
    routes: [
      { ...route('10.11.0.0/16'), nextHops: [hop, { ...hop, link: 9 }] },
      { ...route('10.12.0.0/16'), isCloned: true },
      { ...route('10.13.0.0/16'), protocol: 4 },
    ],
  };
  t.strictSame(plan([], [], observed), []);
  t.strictSame(planClearing(observed, MARKS), []);
});

await t.test('replaces an address that has a peer', async (t) => {
  const observed = seen([], []);
  const peer = ip('10.1.0.9');
  const addresses = [{ ...address('10.1.0.1/32'), peer }];
  t.strictSame(plan(['10.1.0.1/32'], [], { ...observed, addresses }), [
    'remove-address address 10.1.0.1/32',
    'add-address address 10.1.0.1/32',
  ]);
});

await t.test('clears routes before addresses and keeps what the kernel makes', async (t) => {
  const observed = seen(['10.1.0.1/24', 'fe80::1/64'], ['10.10.0.0/16']);
  t.strictSame(planClearing(observed, MARKS).map(describe), [
    'remove-route route 10.10.0.0/16',
    'remove-address address 10.1.0.1/24',
  ]);
});

await t.test('asks for exactly what it says', async (t) => {
  const [addAddress, addRoute] = planLink(
    { ...NOTHING, addresses: [prefix('fd00::1/64')], routes: [prefix('10.10.0.0/16')] },
    seen([], []),
    { protocol: 190, table: 2700, defaultTable: 2680 },
  );
  const [first, second] = encodeLinkChanges([addAddress!, addRoute!]).map(
    (request) => readMessages(request).messages[0],
  );
  t.match(decodeAddress(first!), { link: INDEX, address: { address: 'fd00::1', length: 64 } });
  t.match(decodeRoute(second!), {
    destination: { address: '10.10.0.0', length: 16 },
    table: 2700,
    protocol: 190,
    type: 'unicast',
    nextHops: [{ link: INDEX, gateway: undefined }],
  });
});

await t.test('leads default traffic by a route of its own table, then by two rules', async (t) => {
  const wanted = { ...NOTHING, defaultFor: ['br-lan'] };
  t.strictSame(planLink(wanted, seen([], []), MARKS).map(describe), [
    'add-route route 0.0.0.0/0 of table 2680',
    'add-route route ::/0 of table 2680',
    'add-rule IPv4 rule 32680 iif br-lan lookup 254 suppress_prefixlength 0',
    'add-rule IPv4 rule 32681 iif br-lan lookup 2680',
    'add-rule IPv6 rule 32680 iif br-lan lookup 254 suppress_prefixlength 0',
    'add-rule IPv6 rule 32681 iif br-lan lookup 2680',
  ]);
});

await t.test(
  'keeps the rules that are there, and removes ours that say anything else',
  async (t) => {
    const rules = rulesFor('br-lan');
    const observed = { ...seen([], []), rules };
    const wanted = { ...NOTHING, defaultFor: ['br-lan'] };
    const changes = (with_: readonly Rule[]) =>
      planRules(wanted, [...rules, ...with_], MARKS).map(describe);
    t.strictSame(changes([]), []);
    const [first] = rules;
    t.strictSame(changes([{ ...first!, isPlain: false }]), [
      'remove-rule IPv4 rule 32680 iif br-lan lookup 254 suppress_prefixlength 0',
    ]);
    t.strictSame(changes([{ ...first!, priority: 7 }]), [
      'remove-rule IPv4 rule 7 iif br-lan lookup 254 suppress_prefixlength 0',
    ]);
    t.strictSame(changes([first!]).length, 1, 'one of two is enough');
    t.strictSame(changes([{ ...first!, priority: 7, protocol: 4 }]), [], 'of others none');
    t.strictSame(planClearing(observed, MARKS).map(describe), [
      'remove-rule IPv6 rule 32681 iif br-lan lookup 2680',
      'remove-rule IPv6 rule 32680 iif br-lan lookup 254 suppress_prefixlength 0',
      'remove-rule IPv4 rule 32681 iif br-lan lookup 2680',
      'remove-rule IPv4 rule 32680 iif br-lan lookup 254 suppress_prefixlength 0',
    ]);
  },
);

await t.test('accepts an equal rule of another program in place of ours', async (t) => {
  const foreign = rulesFor('br-lan').map((rule) => ({ ...rule, protocol: 4 }));
  t.strictSame(planRules({ ...NOTHING, defaultFor: ['br-lan'] }, foreign, MARKS), []);
  t.strictSame(planRules(NOTHING, foreign, MARKS), []);
});

await t.test('leads neither itself nor what this machine sends into the link', async (t) => {
  t.strictSame(planRules({ ...NOTHING, defaultFor: ['culvert0', 'lo'] }, [], MARKS), []);
});

await t.test('asks for the rules that it says', async (t) => {
  const rules = rulesFor('br-lan');
  const decoded = encodeLinkChanges(rules.map((rule) => ({ type: 'add-rule', rule }))).map(
    (request) => decodeRule(readMessages(request).messages[0]!),
  );
  t.strictSame(decoded, rules);
});

await t.test('plans ten thousand changes in no time worth naming', async (t) => {
  const texts = (second: number) =>
    Array.from({ length: 10_000 }, (_, i) => `10.${second + (i >> 8)}.${i & 255}.0/24`);
  const changes = plan([], texts(0), seen([], texts(100)));
  t.equal(changes.length, 20_000);
  t.equal(changes[0], 'add-route route 10.0.0.0/24');
});

function plan(
  addresses: readonly string[],
  routes: readonly string[],
  observed: ObservedLink,
): readonly string[] {
  const wanted = { ...NOTHING, addresses: addresses.map(prefix), routes: routes.map(prefix) };
  return planLink(wanted, observed, MARKS).map(describe);
}

/** The rules as the kernel would have them. */
function rulesFor(...defaultFor: readonly string[]): readonly Rule[] {
  return planRules({ ...NOTHING, defaultFor }, [], MARKS).map(({ rule }) => ({
    ...rule,
    isPlain: true,
  }));
}

function describe(change: LinkChange): string {
  return `${change.type} ${changedObject(change)}`;
}

function seen(addresses: readonly string[], routes: readonly string[]): ObservedLink {
  return {
    link: {
      index: INDEX,
      name: 'culvert0',
      kind: 'tun',
      hardwareType: 65_534,
      mtu: 1408,
      isUp: true,
      hasCarrier: true,
      state: 'unknown',
      hardwareAddress: undefined,
      controller: undefined,
      lower: undefined,
    },
    addresses: addresses.map(address),
    routes: routes.map(route),
    rules: [],
  };
}

function address(text: string): LinkAddress {
  return {
    link: INDEX,
    address: prefix(text),
    peer: undefined,
    scope: text.startsWith('fe80') ? 253 : 0,
    flags: 0,
    label: undefined,
    protocol: undefined,
  };
}

function route(text: string): Route {
  return {
    destination: networkOf(prefix(text)),
    type: 'unicast',
    table: 254,
    protocol: 186,
    scope: 253,
    metric: 0,
    source: undefined,
    preferredSource: undefined,
    nextHops: [{ link: INDEX, gateway: undefined, weight: 1 }],
    isCloned: false,
  };
}

function prefix(text: string) {
  const parsed = parseInterfaceAddress(text);
  if (!parsed.ok) throw new Error(`not an address: ${text}`);
  return parsed.value;
}

function ip(text: string): IpAddress {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(`not an address: ${text}`);
  return parsed.value;
}
