import type { Test } from 'tap';
import { parseInterfaceAddress, type IpPrefix } from '../../core/net/ip-prefix.ts';
import type { Links, WantedLink } from '../../core/plugin/links.ts';

/** A kernel with one interface, what other programs do to it, and a view that does not use our codecs. */
export interface LinksWorld {
  readonly links: Links;
  /** The name of an interface that exists and is down. */
  readonly link: string;
  readonly read: () => LinkView | undefined;
  readonly readRules: () => RulesView;
  /** The acts of another program. */
  readonly addAddress: (address: string) => void;
  readonly removeAddress: (address: string) => void;
  readonly addRoute: (destination: string, protocol: number) => void;
  readonly removeRoute: (destination: string) => void;
  /** An IPv4 rule, such as `78 iif lan0 lookup 99`. */
  readonly addRule: (rule: string, protocol: number) => void;
  readonly removeRule: (rule: string, protocol: number) => void;
  readonly setDown: () => void;
  readonly disableIpv6: () => void;
  readonly removeLink: () => void;
  /** Makes another interface, which is up. */
  readonly addLink: (name: string) => void;
  readonly addAddressTo: (name: string, address: string, state?: AddressState) => void;
  /** Adds an address whose prefix gets a temporary one (RFC 8981) after it, which is returned. */
  readonly addTemporary: (name: string, address: string) => Promise<string>;
  readonly setLinkDown: (name: string) => void;
  /** Waits until what happened before has been told to monitors. */
  readonly settle: () => Promise<void>;
  readonly close: () => void | Promise<void>;
}

export type AddressState = 'preferred' | 'deprecated' | 'tentative';

/** Sorted. */
export interface RulesView {
  /** Each with family and protocol number (`4 78 iif lan0 lookup 99 213`), without the kernel's. */
  readonly rules: readonly string[];
  /** Families of the default routes in the table of ours, each with its protocol number: `4 213`. */
  readonly defaults: readonly string[];
}

export interface LinkView {
  readonly mtu: number;
  readonly isUp: boolean;
  /** Without the link-local ones that the kernel makes; sorted. */
  readonly addresses: readonly string[];
  /** Of the main table, each with its protocol number (`10.0.0.0/8 213`), without the kernel's; sorted. */
  readonly routes: readonly string[];
}

/** The route protocol number that the links under test mark their routes with. */
export const OURS = 213;
/** That of another routing daemon. */
const FOREIGN = 187;

/** What every implementation of `Links` does. */
export async function linksContract(t: Test, open: () => Promise<LinksWorld>): Promise<void> {
  const inWorld = async (
    title: string,
    run: (t: Test, world: LinksWorld, wanted: WantedLink) => void | Promise<void>,
  ) => {
    await t.test(title, async (t) => {
      const world = await open();
      try {
        await run(t, world, wantedOn(world));
      } finally {
        await world.close();
      }
    });
  };

  await inWorld('brings an interface into the wanted state', (t, { links, read }, wanted) => {
    const outcome = links.apply(wanted);
    t.ok(outcome.ok, JSON.stringify(outcome));
    t.strictSame(outcome.failures, []);
    t.strictSame(read(), WANTED_VIEW);
  });

  await inWorld('changes nothing the second time', (t, { links }, wanted) => {
    links.apply(wanted);
    t.strictSame(links.apply(wanted), { ok: true, value: { changes: 0 }, failures: [] });
  });

  await inWorld('changes only what differs', (t, { links, read }, wanted) => {
    links.apply(wanted);
    const next = {
      ...wanted,
      addresses: prefixes('100.64.0.1/32', 'fd00:1::2/128'),
      routes: prefixes('100.96.0.0/11', '10.20.0.0/16', 'fd00:2::/48'),
    };
    const outcome = links.apply(next);
    t.match(outcome, { ok: true, value: { changes: 4 } });
    t.match(read(), {
      addresses: ['100.64.0.1/32', 'fd00:1::2/128'],
      routes: ['10.20.0.0/16 213', '100.96.0.0/11 213', 'fd00:2::/48 213'],
    });
  });

  await inWorld('moves to another address of the subnet', (t, { links, read }, wanted) => {
    links.apply({ ...wanted, addresses: prefixes('10.1.0.1/24', '10.1.0.3/24') });
    const next = { ...wanted, addresses: prefixes('10.1.0.2/24', '10.1.0.3/24') };
    t.ok(links.apply(next).ok);
    t.match(read(), {
      addresses: ['10.1.0.2/24', '10.1.0.3/24'],
      routes: WANTED_VIEW.routes,
    });
    t.match(links.apply(next), { value: { changes: 0 } });
  });

  await inWorld('gives an address another length', (t, { links, read }, wanted) => {
    links.apply({ ...wanted, addresses: prefixes('10.1.0.1/24', 'fd00:1::1/64') });
    t.ok(links.apply({ ...wanted, addresses: prefixes('10.1.0.1/16', 'fd00:1::1/48') }).ok);
    t.strictSame(read()?.addresses, ['10.1.0.1/16', 'fd00:1::1/48']);
  });

  await inWorld('needs no route where the subnet leads there', (t, { links, read }, wanted) => {
    const connected = {
      ...wanted,
      addresses: prefixes('10.1.0.1/24'),
      routes: prefixes('10.1.0.0/24'),
    };
    t.ok(links.apply(connected).ok);
    t.strictSame(read()?.routes, []);
    t.match(links.apply(connected), { value: { changes: 0 } });
  });

  await inWorld('keeps the routes of others', (t, { links, read, addRoute }, wanted) => {
    links.apply(wanted);
    addRoute('172.16.0.0/12', FOREIGN);
    links.apply({ ...wanted, routes: [] });
    t.strictSame(read()?.routes, ['172.16.0.0/12 187']);
  });

  await inWorld('accepts the route of another in place of ours', (t, world, wanted) => {
    world.links.apply({ ...wanted, routes: [] });
    world.addRoute('10.10.0.0/16', FOREIGN);
    t.strictSame(world.links.apply({ ...wanted, routes: prefixes('10.10.0.0/16') }).ok, true);
    t.strictSame(world.read()?.routes, ['10.10.0.0/16 187']);
    world.removeRoute('10.10.0.0/16');
    t.match(world.links.apply({ ...wanted, routes: prefixes('10.10.0.0/16') }), {
      value: { changes: 1 },
    });
  });

  await inWorld('removes what an earlier run left behind', (t, world, wanted) => {
    world.links.apply({ ...wanted, routes: [] });
    world.addRoute('10.77.0.0/16', OURS);
    world.addAddress('10.77.0.1/24');
    t.match(world.links.apply(wanted), { ok: true, value: { changes: 4 + 1 } });
    t.strictSame(world.read(), WANTED_VIEW);
  });

  await inWorld(
    'clears its marks and nothing else',
    (t, { links, link, read, addRoute }, wanted) => {
      links.apply(wanted);
      addRoute('fd77::/48', FOREIGN);
      links.clear(link);
      t.match(read(), { addresses: [], routes: ['fd77::/48 187'], mtu: 1408 });
      links.clear('none-such');
    },
  );

  await inWorld('names an interface that is not there', (t, { links, removeLink }, wanted) => {
    removeLink();
    const outcome = links.apply(wanted);
    t.match(outcome, { ok: false, why: 'no-link', failures: [{ code: 'ENODEV' }] });
  });

  await inWorld('says which objects IPv6 being off costs', (t, world, wanted) => {
    world.disableIpv6();
    const outcome = world.links.apply(wanted);
    t.match(outcome, { ok: false, why: 'refused' });
    t.strictSame(outcome.failures.map(({ object, message }) => `${object}: ${message}`).sort(), [
      `address fd00:1::1/128: IPv6 is disabled on ${world.link}`,
      `route fd00:2::/48: IPv6 is disabled on ${world.link}`,
    ]);
    t.match(world.read(), {
      addresses: ['100.64.0.1/32'],
      routes: ['10.10.0.0/16 213', '100.96.0.0/11 213'],
    });
  });

  const acts: readonly [string, (world: LinksWorld) => void][] = [
    ['removed an address', (world) => world.removeAddress('100.64.0.1/32')],
    ['added an address', (world) => world.addAddress('10.78.0.1/24')],
    ['removed a route', (world) => world.removeRoute('fd00:2::/48')],
    ['set the interface down', (world) => world.setDown()],
  ];
  for (const [title, act] of acts) {
    await inWorld(`is told and repairs when another ${title}`, async (t, world, wanted) => {
      world.links.apply(wanted);
      await world.settle();
      let told = 0;
      world.links.monitor(() => {
        told++;
        world.links.apply(wanted);
      });
      act(world);
      await world.settle();
      t.ok(told > 0, 'was told');
      t.strictSame(world.read(), WANTED_VIEW);
    });
  }

  await inWorld('leads the default traffic of others in', (t, world, wanted) => {
    const { links, read, readRules } = world;
    const leading = { ...wanted, defaultFor: ['lan0', 'guest0'] };
    t.match(links.apply(leading), { ok: true, failures: [] });
    t.strictSame(readRules(), {
      rules: [...rulesOf('4', 'guest0', 'lan0'), ...rulesOf('6', 'guest0', 'lan0')],
      defaults: ['4 213', '6 213'],
    });
    t.strictSame(read(), WANTED_VIEW);
    t.strictSame(links.apply(leading), { ok: true, value: { changes: 0 }, failures: [] });
    const fewer = links.apply({ ...wanted, defaultFor: ['lan0'] });
    t.match(fewer, { ok: true, value: { changes: 4 } });
    t.strictSame(readRules().rules, [...rulesOf('4', 'lan0'), ...rulesOf('6', 'lan0')]);
    t.match(links.apply(wanted), { ok: true, value: { changes: 4 + 2 } });
    t.strictSame(readRules(), { rules: [], defaults: [] });
  });

  await inWorld('removes the rules of an earlier run and no others', (t, world, wanted) => {
    const { links, addRule, readRules } = world;
    addRule('77 iif old0 lookup 99', OURS);
    addRule('78 iif old0 lookup 99', FOREIGN);
    t.match(links.apply(wanted), { ok: true, failures: [] });
    t.strictSame(readRules().rules, ['4 78 iif old0 lookup 99 187']);
  });

  await inWorld('accepts the rule of another in place of ours', (t, world, wanted) => {
    const { links, addRule, removeRule, readRules } = world;
    addRule('32681 iif lan0 lookup 2680', FOREIGN);
    const leading = { ...wanted, defaultFor: ['lan0'] };
    t.match(links.apply(leading), { ok: true, failures: [] });
    t.ok(readRules().rules.includes('4 32681 iif lan0 lookup 2680 187'));
    t.match(links.apply(leading), { value: { changes: 0 } });
    removeRule('32681 iif lan0 lookup 2680', FOREIGN);
    t.match(links.apply(leading), { ok: true, value: { changes: 1 } });
  });

  await inWorld('clears its rules, also after the interface went', (t, world, wanted) => {
    const { links, link, addRule, removeLink, readRules } = world;
    const leading = { ...wanted, defaultFor: ['lan0'] };
    addRule('78 iif old0 lookup 99', FOREIGN);
    links.apply(leading);
    links.clear(link);
    const left = { rules: ['4 78 iif old0 lookup 99 187'], defaults: [] };
    t.strictSame(readRules(), left);
    links.apply(leading);
    removeLink();
    links.clear(link);
    t.strictSame(readRules(), left);
  });

  await inWorld('leads in only the families that the link has', (t, world, wanted) => {
    world.disableIpv6();
    const leading = {
      ...wanted,
      addresses: prefixes('100.64.0.1/32'),
      routes: [],
      defaultFor: ['lan0'],
    };
    t.match(world.links.apply(leading), { ok: true, failures: [] });
    t.strictSame(world.readRules().defaults, ['4 213']);
    t.match(world.links.apply(leading), { ok: true, value: { changes: 0 }, failures: [] });
  });

  await inWorld('names a rule that the kernel does not take', (t, world, wanted) => {
    const outcome = world.links.apply({ ...wanted, defaultFor: ['lan0', 'a-name-too-long-'] });
    t.match(outcome, { ok: false, why: 'refused' });
    t.strictSame(outcome.failures[0], {
      object: 'IPv4 rule 32680 iif a-name-too-long- lookup 254 suppress_prefixlength 0',
      code: 'ERANGE',
      message: 'a-name-too-long- is not the name of an interface',
    });
    t.equal(outcome.failures.length, 4);
    t.strictSame(world.readRules().rules, [...rulesOf('4', 'lan0'), ...rulesOf('6', 'lan0')]);
  });

  await inWorld('is told and repairs when another removed a rule', async (t, world, wanted) => {
    const leading = { ...wanted, defaultFor: ['lan0'] };
    world.links.apply(leading);
    await world.settle();
    let told = 0;
    world.links.monitor(() => {
      told++;
      world.links.apply(leading);
    });
    world.removeRule('32681 iif lan0 lookup 2680', OURS);
    await world.settle();
    t.ok(told > 0, 'was told');
    t.strictSame(world.readRules().rules, [...rulesOf('4', 'lan0'), ...rulesOf('6', 'lan0')]);
  });

  await inWorld('knows the addresses of other interfaces', (t, world, wanted) => {
    const { links, link } = world;
    links.apply(wanted);
    t.strictSame(links.localAddresses(link), []);
    world.addLink('wan');
    world.addAddressTo('wan', '192.0.2.7/24');
    world.addAddressTo('wan', '198.51.100.7/24');
    world.addAddressTo('wan', '2001:db8:1::7/64');
    const all = ['192.0.2.7', '198.51.100.7', '2001:db8:1::7'];
    t.strictSame(links.localAddresses(link), all);
    t.strictSame(links.localAddresses('wan'), ['100.64.0.1', 'fd00:1::1']);
    world.setLinkDown('wan');
    t.strictSame(links.localAddresses(link), []);
  });

  await inWorld('passes over addresses that are not for use', (t, { links, link, ...world }) => {
    world.addLink('wan');
    world.addAddressTo('wan', '2001:db8:1::7/64', 'deprecated');
    world.addAddressTo('wan', '2001:db8:2::7/64', 'tentative');
    world.addAddressTo('wan', 'fe80::7/64');
    world.addAddressTo('wan', 'fd00:3::7/64');
    t.strictSame(links.localAddresses(link), ['fd00:3::7']);
  });

  await inWorld('puts a temporary address before the stable one', async (t, world) => {
    const { links, link } = world;
    world.addLink('wan');
    world.addAddressTo('wan', '192.0.2.7/24');
    const temporary = await world.addTemporary('wan', '2001:db8:1::7/64');
    t.strictSame(links.localAddresses(link), ['192.0.2.7', temporary, '2001:db8:1::7']);
  });

  await inWorld('names 32 addresses at most', (t, { links, link, ...world }) => {
    world.addLink('wan');
    for (let n = 1; n <= 40; n++) world.addAddressTo('wan', `192.0.2.${n}/24`);
    t.strictSame(
      links.localAddresses(link),
      Array.from({ length: 32 }, (_, i) => `192.0.2.${i + 1}`),
    );
  });

  await inWorld('is told when the interface goes', async (t, world, wanted) => {
    world.links.apply(wanted);
    await world.settle();
    let outcome: ReturnType<Links['apply']> | undefined;
    world.links.monitor(() => {
      outcome = world.links.apply(wanted);
    });
    world.removeLink();
    await world.settle();
    t.match(outcome, { ok: false, why: 'no-link' });
  });

  await inWorld('is not told of its own routes, addresses and rules', async (t, world, wanted) => {
    world.links.apply({ ...wanted, routes: [], addresses: prefixes('100.64.0.9/32') });
    await world.settle();
    let told = 0;
    world.links.monitor(() => told++);
    t.match(world.links.apply({ ...wanted, defaultFor: ['lan0'] }), { ok: true });
    t.match(world.links.apply(wanted), { ok: true });
    await world.settle();
    t.equal(told, 0);
  });

  await inWorld('is told no more after the end', async (t, world, wanted) => {
    world.links.apply(wanted);
    let told = 0;
    const end = world.links.monitor(() => told++);
    end();
    world.removeRoute('10.10.0.0/16');
    await world.settle();
    t.equal(told, 0);
  });
}

const WANTED_VIEW: LinkView = {
  mtu: 1408,
  isUp: true,
  addresses: ['100.64.0.1/32', 'fd00:1::1/128'],
  routes: ['10.10.0.0/16 213', '100.96.0.0/11 213', 'fd00:2::/48 213'],
};

/** Our rules as `RulesView` has them. */
function rulesOf(family: string, ...links: readonly string[]): readonly string[] {
  return [
    ...links.map((link) => `${family} 32680 iif ${link} lookup 254 suppress_prefixlength 0 213`),
    ...links.map((link) => `${family} 32681 iif ${link} lookup 2680 213`),
  ];
}

function wantedOn({ link }: LinksWorld): WantedLink {
  return {
    name: link,
    mtu: 1408,
    addresses: prefixes('100.64.0.1/32', 'fd00:1::1/128'),
    routes: prefixes('10.10.0.0/16', '100.96.0.0/11', 'fd00:2::/48'),
    defaultFor: [],
  };
}

export function prefixes(...texts: readonly string[]): readonly IpPrefix[] {
  return texts.map((text) => {
    const parsed = parseInterfaceAddress(text);
    if (!parsed.ok) throw new Error(`not an address: ${text}`);
    return parsed.value;
  });
}
