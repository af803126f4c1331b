import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { eventually } from '../lab/daemon.ts';
import { HOSTS, NameSites, PUBLIC_ANSWER, type DnsMode } from '../lab/name-sites.ts';
import { whyNoLab, type Running } from '../lab/namespaces.ts';

const NAMES = ['crm', 'wiki', 'one', 'two', 'three'].map((label) => `${label}.corp.example`);

await t.test(
  'the LAN has names whatever becomes of the daemon',
  { skip: whyNoLab() },
  async (t) => {
    const sites = await NameSites.create(t, 'names-out');
    sites.b.daemon.configure(sites.configurationOf('b'));
    await sites.b.daemon.start();
    for (const mode of ['redirect', 'dnsmasq'] as const) {
      sites.a.daemon.configure(sites.configurationOf('a', mode));
      await t.test(`in mode ${mode}`, (t) => outages(t, sites, mode));
    }
    await t.test('the mode may change while it runs', (t) => changes(t, sites));
    await t.test('where it is not OpenWrt, it says so', (t) => withoutOpenWrt(t, sites));
  },
);

async function outages(t: Test, sites: NameSites, mode: DnsMode): Promise<void> {
  // The resolver that a host is told of; a redirection takes also what goes to any other.
  const servers = mode === 'redirect' ? [HOSTS.router.ipv4, HOSTS.publicIpv4] : [HOSTS.router.ipv4];
  const file = join(sites.openwrt.confDir, 'culvert.conf');
  let fresh = 0;
  /** Names that nobody has in a cache. */
  const ordinary = async (t: Test, why: string): Promise<void> => {
    for (const server of servers) {
      for (const way of [[], ['+tcp']]) {
        const name = `${mode}-${fresh++}.example`;
        t.equal(await sites.ask(`@${server}`, ...way, name), PUBLIC_ANSWER, `${why}: ${name}`);
      }
    }
    t.equal(await sites.ask('router.lan'), HOSTS.router.ipv4, `${why}: the router's own`);
  };
  const isUnknown = async (t: Test): Promise<void> => {
    t.equal(await sites.ask(NAMES[0] ?? ''), PUBLIC_ANSWER, 'nobody knows names of resources');
  };

  await sites.startA();
  const proxies = await proxiesOf(sites, NAMES);
  t.equal(new Set(proxies.values()).size, NAMES.length);
  t.ok(
    [...proxies.values()].every((one) => one.startsWith('100.96.')),
    'each has a proxy',
  );
  await ordinary(t, 'while it runs');

  await t.test('stopped, it has taken everything back', async (t) => {
    t.equal(await sites.a.daemon.stop(), 0);
    await ordinary(t, 'stopped');
    await isUnknown(t);
    t.notOk(existsSync(file));
    const { stdout } = await sites.lab.exec('a', ['nft', 'list', 'tables']);
    t.notMatch(stdout, 'culvert');
  });

  let running: Running | undefined;
  await t.test('started again, names have the proxies that they had', async (t) => {
    running = await sites.startA();
    // In another order, in which they would be given others.
    t.strictSame(await proxiesOf(sites, NAMES.toReversed()), new Map([...proxies].toReversed()));
  });

  await t.test('fail open: after SIGKILL amid queries the next is answered in 2 s', async (t) => {
    const amid = Array.from({ length: 4 }, async (_, host) => {
      const said: string[] = [];
      for (let i = 0; i < 8; i++) {
        said.push(await sites.ask('+time=1', `amid${i}.of${host}.${mode}.example`));
      }
      return said;
    });
    await new Promise((resolve) => setTimeout(resolve, 150));
    running?.signal('SIGKILL');
    await running?.ended;
    for (const server of servers) {
      const began = performance.now();
      t.equal(await sites.ask(`@${server}`, `next.${mode}.example`), PUBLIC_ANSWER, server);
      const took = performance.now() - began;
      t.ok(took < 2_000, `${Math.round(took)} ms`);
    }
    for (const said of await Promise.all(amid)) t.equal(said.at(-1), PUBLIC_ANSWER);
    await ordinary(t, 'killed');
    if (mode === 'dnsmasq') {
      const name = `late.${mode}.corp.example`;
      t.not(await sites.ask('+time=1', name), PUBLIC_ANSWER, 'nobody to ask');
      t.notOk(sites.publicQueries.includes(`A ${name}`), 'and it stays here all the same');
    }
  });

  await t.test('started after that, names have the same proxies, and are used', async (t) => {
    await sites.startA();
    t.strictSame(await proxiesOf(sites, NAMES), proxies);
    await ordinary(t, 'started again');
    const proxy = proxies.get(NAMES[0] ?? '') ?? '';
    const ping = ['ping', '-n', '-c', '1', '-W', '5', proxy];
    t.equal((await sites.lab.exec('host-a', ping)).code, 0, `${proxy} leads to the server`);
    t.equal(await sites.a.daemon.stop(), 0);
    t.notOk(existsSync(file));
  });
}

async function changes(t: Test, sites: NameSites): Promise<void> {
  const [name = ''] = NAMES;
  const running = await sites.startA();
  const first = await sites.ask(name);
  // Another resolver than the router's is redirected alone.
  const answersTo = async (server: string): Promise<boolean> =>
    (await sites.ask(`@${server}`, name)) === first;
  const until = (server: string, expected: boolean) =>
    eventually(
      () => answersTo(server),
      (is) => is === expected,
      20_000,
    );
  const reload = (mode: DnsMode | 'off'): void => {
    sites.a.daemon.configure(sites.configurationOf('a', 'redirect', { dns: { mode } }));
    running.signal('SIGHUP');
  };
  t.notOk(await answersTo(HOSTS.publicIpv4), 'dnsmasq');
  reload('redirect');
  t.ok(await until(HOSTS.publicIpv4, true), 'redirect');
  t.ok(await answersTo(HOSTS.router.ipv4));
  t.notOk(existsSync(join(sites.openwrt.confDir, 'culvert.conf')));
  reload('off');
  t.notOk(await until(HOSTS.publicIpv4, false), 'off');
  t.notOk(await answersTo(HOSTS.router.ipv4));
  reload('dnsmasq');
  t.ok(await until(HOSTS.router.ipv4, true), 'dnsmasq');
  t.notOk(await answersTo(HOSTS.publicIpv4));
  t.equal(await sites.a.daemon.stop(), 0);
}

async function withoutOpenWrt(t: Test, sites: NameSites): Promise<void> {
  const { daemon } = sites.a;
  daemon.prefix = [];
  const running = daemon.spawn();
  const [, detail] = await running.waitFor(/do not come to us.*"detail":"([^"]*)"/, 15_000);
  t.match(detail, 'use redirect');
  t.equal(await sites.ask('elsewhere.example'), PUBLIC_ANSWER, 'all else goes on');
  t.equal(await daemon.stop(), 0);
}

/** The first address of each name. */
async function proxiesOf(
  sites: NameSites,
  names: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const proxies = new Map<string, string>();
  for (const name of names) proxies.set(name, (await sites.ask(name)).split(' ')[0] ?? '');
  return proxies;
}
