import t, { type Test } from 'tap';
import {
  HOSTS,
  NameSites,
  PUBLIC_ANSWER,
  SITE_RECORDS,
  type DnsMode,
  type NameSiteName,
} from '../lab/name-sites.ts';
import { whyNoLab } from '../lab/namespaces.ts';

const IPV4 = /^(100\.96\.0\.\d+ ?){4}$/;
const IPV6 = /^(fd3c:91d6:b4a2:8000::[\da-f]+ ?){4}$/;

/** Types that a resource's name has nothing of; the last three are not even known to most programs. */
const NO_DATA = ['HTTPS', 'SVCB', 'MX', 'NS', 'CAA', 'SOA', 'DS', 'CNAME', 'NAPTR', 'TYPE65280'];

/** Text records of one name that make an answer of about so many bytes. */
const textOf = (name: string, bytes: number) =>
  Array.from({ length: Math.ceil(bytes / 200) }, (_, i) => {
    const text = `${i} `.padEnd(bytes < 200 ? bytes : 187, 'x');
    return `txt-record=${name},"${text}"`;
  });

const PUBLIC_RECORDS = [
  ...textOf('t1000.example', 1_000),
  ...textOf('t3000.example', 3_000),
  ...textOf('t60000.example', 60_000),
  'mx-host=ordinary.example,mail.example,10',
];

/** All that anybody but the site may ever be asked. */
const ORDINARY =
  /^(\S+ (ordinary|t\d+|xcorp)\.example|\S+ use-application-dns\.net|PTR \S+\.168\.192\.in-addr\.arpa|NS <root>|NS \.)$/i;

await t.test('names of both kinds are answered', { skip: whyNoLab() }, async (t) => {
  const sites = await NameSites.create(t, 'names-ans', { publicRecords: PUBLIC_RECORDS });
  await sites.setSiteRecords([...SITE_RECORDS, ...textOf('big.corp.example', 60_000)]);

  for (const mode of ['redirect', 'dnsmasq'] as const) {
    await t.test(`in mode ${mode}`, async (t) => {
      await sites.start((name) => documentOf(sites, name, mode));
      await t.test('addresses of resources', (t) => addresses(t, sites, mode));
      await t.test('types that a resource has none of', (t) => noData(t, sites, mode));
      await t.test('types that the site is asked for', (t) => siteTypes(t, sites));
      await t.test('odd names', (t) => oddNames(t, sites));
      await t.test('ordinary names', (t) => ordinary(t, sites));
      if (mode === 'redirect') await t.test('resolvers of others', (t) => others(t, sites));
      if (mode === 'redirect') await t.test('odd queries', (t) => oddQueries(t, sites));
      await Promise.all([sites.a.daemon.stop(), sites.b.daemon.stop()]);
    });
  }

  await t.test('a private name never left', async (t) => {
    t.strictSame(
      sites.publicQueries.filter((query) => !ORDINARY.test(query)),
      [],
    );
    t.ok(sites.publicQueries.includes('A ordinary.example'), 'ordinary ones did');
  });
});

function documentOf(sites: NameSites, name: NameSiteName, mode: DnsMode): object {
  const served = [
    { id: 'corp', type: 'dns', patterns: ['**.corp.example'] },
    { id: 'old', type: 'dns', patterns: ['old.test'], ipStack: 'ipv4-only' },
    { id: 'new', type: 'dns', patterns: ['new.test'], ipStack: 'ipv6-only' },
  ];
  const gateways = name === 'a' ? { gateways: ['site-b'] } : {};
  return sites.configurationOf(name, mode, {
    resources: served.map((resource) => ({ ...resource, ...gateways })),
  });
}

async function addresses(t: Test, sites: NameSites, mode: DnsMode): Promise<void> {
  const ask = (...words: string[]) => sites.ask(...words);
  for (const way of [[], ['+tcp'], ['+noedns'], ['+bufsize=512'], ['+bufsize=4096', '+dnssec']]) {
    t.match(await ask('crm.corp.example', ...way), IPV4, `A ${way.join()}`);
    t.match(await ask('crm.corp.example', 'AAAA', ...way), IPV6, `AAAA ${way.join()}`);
  }
  t.match(await ask(`@${HOSTS.router.ipv6}`, 'crm.corp.example'), IPV4, 'over IPv6');
  t.match(await ask(`@${HOSTS.router.ipv6}`, 'crm.corp.example', '+tcp'), IPV4);
  const [one = '', two] = (await ask('crm.corp.example')).split(' ');
  t.not(one, (await ask('wiki.corp.example')).split(' ')[0], 'each name has its own');
  t.match(await ask('a.b.c.corp.example'), IPV4, 'at any depth');
  t.match(await ask('corp.example'), IPV4, 'the domain itself');
  t.equal(await ask('xcorp.example'), PUBLIC_ANSWER, 'what only ends alike is another');

  const any = await ask('crm.corp.example', 'ANY', '+noshort');
  t.match(any, /status: NOERROR.* ANSWER: 8,/);
  await isNothing(t, sites, 'old.test', 'AAAA', 'IPv4 only');
  t.match(await ask('old.test'), IPV4);
  await isNothing(t, sites, 'new.test', 'A', 'IPv6 only');
  t.match(await ask('new.test', 'AAAA'), IPV6);

  const whole = await ask('crm.corp.example', '+noshort');
  t.match(whole, /crm\.corp\.example\.\s+1\s+IN\s+A\s+100\./, 'for one second');
  for (const address of [one, two ?? '', (await ask('crm.corp.example', 'AAAA')).split(' ')[1]]) {
    t.equal(await ask('-x', address ?? ''), 'crm.corp.example.', `PTR of ${address}`);
  }
  if (mode === 'redirect') await isNothing(t, sites, reverseOf(one), 'TXT', 'of a proxy');

  const mixed = await ask('cRm.CoRp.eXaMpLe', '+noshort');
  t.match(mixed, /;cRm\.CoRp\.eXaMpLe\.\s+IN\s+A/, 'the case of the question comes back');
  t.match(mixed, new RegExp(`\\sA\\s+${one}\\s`), 'and is the same name');

  // Several queries on one stream.
  const names = ['crm.corp.example', 'ordinary.example', 'wiki.corp.example'];
  const kdig = ['kdig', `@${HOSTS.router.ipv4}`, '+tcp', '+keepopen', '+short', ...names];
  const { stdout } = await sites.lab.exec('host-a', kdig);
  t.match(stdout, new RegExp(`${one}\\n(.*\\n)*${PUBLIC_ANSWER}\\n(.*\\n)*100\\.96\\.`), 'kdig');
}

async function noData(t: Test, sites: NameSites, mode: DnsMode): Promise<void> {
  for (const [i, type] of NO_DATA.entries()) {
    const name = `${mode}${i}.corp.example`;
    // dig asks one after the other.
    const types = [type, 'A', 'AAAA', type, 'A', type];
    const said = await sites.ask('+noshort', ...types.flatMap((each) => [name, each]));
    const answers = said.matchAll(/status: (\w+).*? ANSWER: (\d+)/g);
    t.strictSame(
      Array.from(answers, ([, status, count]) => `${status} ${count}`),
      types.map((each) => (each === type ? 'NOERROR 0' : 'NOERROR 4')),
      types.join(),
    );
  }
  const [type = ''] = NO_DATA;
  await isNothing(t, sites, `${mode}-udp.corp.example`, type, 'without EDNS', '+noedns');
  await isNothing(t, sites, `${mode}-tcp.corp.example`, type, 'over TCP', '+tcp');
}

async function siteTypes(t: Test, sites: NameSites): Promise<void> {
  const srv = '10 20 389 crm.corp.example.';
  for (const way of [[], ['+tcp'], ['+noedns']]) {
    t.equal(await sites.ask('_ldap._tcp.corp.example', 'SRV', ...way), srv, way.join());
    t.equal(await sites.ask('crm.corp.example', 'TXT', ...way), '"kept in the site"', way.join());
  }
  t.equal(await sites.ask('_sip._udp.crm.corp.example', 'SRV'), '1 0 5060 crm.corp.example.');
  t.match(await sites.ask('crm.corp.example'), IPV4);
  await isNothing(t, sites, 'wiki.corp.example', 'TXT', 'that the site has none of');
  const big = await sites.ask('big.corp.example', 'TXT', '+noshort');
  t.match(big, /Truncated, retrying in TCP/);
  t.match(big, /status: NOERROR.* ANSWER: 300,.*MSG SIZE {2}rcvd: 6\d{4}/, '60 KB of the site');
  t.match(await sites.ask('big.corp.example'), IPV4);
}

async function oddNames(t: Test, sites: NameSites): Promise<void> {
  const names = [
    String.raw`a\.b.corp.example`,
    String.raw`\\.corp.example`,
    String.raw`sp\032ace.corp.example`,
    String.raw`\000\001\255.corp.example`,
    String.raw`\"quo\;te\@.corp.example`,
    `_under.corp.example`,
    'xn--bcher-kva.corp.example',
    `${'l'.repeat(63)}.corp.example`,
    `${`${'l'.repeat(56)}.`.repeat(4)}corp.example`,
  ];
  for (const name of names) t.match(await sites.ask(name), IPV4, name);
}

async function ordinary(t: Test, sites: NameSites): Promise<void> {
  const ask = (...words: string[]) => sites.ask(...words);
  for (const way of [[], ['+tcp'], ['+noedns'], [`@${HOSTS.router.ipv6}`]]) {
    t.equal(await ask('ordinary.example', ...way), PUBLIC_ANSWER, way.join());
  }
  t.equal(await ask('ordinary.example', 'MX'), '10 mail.example.');
  t.match(await ask('use-application-dns.net', '+noshort'), 'status: NXDOMAIN');
  t.equal(await ask('router.lan'), HOSTS.router.ipv4, 'names of the router');
  t.equal(await ask('laptop.lan'), HOSTS.client.ipv4);
  t.equal(await ask('-x', HOSTS.client.ipv4), 'laptop.lan.');
  t.match(await ask('nobody.lan', '+noshort'), 'status: NXDOMAIN');
  t.equal(await sites.dig('a', '@127.0.0.1', 'ordinary.example'), PUBLIC_ANSWER, 'of the router');
  t.equal(await sites.dig('a', `@${HOSTS.isp}`, 'ordinary.example'), PUBLIC_ANSWER);

  const large = (name: string, ...words: string[]) => ask(name, 'TXT', '+noshort', ...words);
  t.match(await large('t1000.example', '+bufsize=1232'), /ANSWER: 5,.*rcvd: 1\d{3}/);
  const small = await large('t1000.example', '+bufsize=512', '+ignore');
  t.match(small, /flags: qr[a-z ]* tc.*rcvd: \d{2,3}$/, 'truncated at 512');
  t.match(await large('t1000.example', '+noedns', '+ignore'), /flags: qr[a-z ]* tc/);
  t.match(await large('t3000.example'), /retrying in TCP.*ANSWER: 15,.*rcvd: 3\d{3}/);
  t.match(await large('t60000.example'), /retrying in TCP.*ANSWER: 300,.*rcvd: 6\d{4}/);
  t.match(await large('t60000.example', '+tcp'), /ANSWER: 300,.*rcvd: 6\d{4}/);
}

/** Hosts that have a resolver of their own choice are answered by us. */
async function others(t: Test, sites: NameSites): Promise<void> {
  for (const server of [HOSTS.publicIpv4, HOSTS.publicIpv6, HOSTS.isp, '203.0.113.99']) {
    for (const way of [[], ['+tcp']]) {
      const asked = [`@${server}`, ...way];
      t.match(await sites.ask(...asked, 'crm.corp.example'), IPV4, asked.join(' '));
      t.equal(await sites.ask(...asked, 'ordinary.example'), PUBLIC_ANSWER, asked.join(' '));
    }
  }
}

async function oddQueries(t: Test, sites: NameSites): Promise<void> {
  const ask = (...words: string[]) => sites.ask(...words, '+noshort');
  t.match(await ask('crm.corp.example', '+edns=1', '+noednsneg'), 'status: BADVERS');
  t.match(await ask('crm.corp.example', '+opcode=NOTIFY'), 'status: NOTIMP');
  t.match(await ask('crm.corp.example', '-c', 'CH'), 'status: REFUSED');
  t.match(await ask('+header-only'), 'status: FORMERR');
}

/** NOERROR without an answer: NXDOMAIN would be taken to be true of all types. */
async function isNothing(
  t: Test,
  sites: NameSites,
  name: string,
  type: string,
  why: string,
  ...way: readonly string[]
): Promise<void> {
  const said = await sites.ask('+noshort', name, type, ...way);
  t.match(said, /status: NOERROR.* ANSWER: 0,/, `${type} of ${name}, ${why}`);
}

function reverseOf(address: string): string {
  return `${address.split('.').reverse().join('.')}.in-addr.arpa`;
}
