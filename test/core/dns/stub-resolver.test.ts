import t from 'tap';
import { decodeQuery, readRecords } from '../../../core/dns/message.ts';
import { ProxyPool } from '../../../core/dns/proxy-pool.ts';
import { reverseName } from '../../../core/dns/reverse-name.ts';
import { StubResolver, type StubDecision } from '../../../core/dns/stub-resolver.ts';
import type { IpAddress } from '../../../core/net/ip-address.ts';
import {
  decode,
  nameOf,
  pool,
  prefixOf,
  question,
  RANGES,
  resources,
  type QuestionOptions,
  type TestResource,
} from './messages.ts';

const PATTERNS = {
  'crm.corp.example': 'dual',
  'v4.corp.example': 'ipv4-only',
  'v6.corp.example': 'ipv6-only',
  '*.wild.example': 'dual',
  '**.deep.example': 'ipv4-only',
  'both.deep.example': 'ipv6-only',
} as const;

const IPV4 = [4, 5, 6, 7].map((i) => `A 100.96.0.${i}`);
const IPV6 = [4, 5, 6, 7].map((i) => `AAAA fd12:3456:789a:8000::${i}`);
const PROXY_PTR = '4.0.96.100.in-addr.arpa';
const PROXY_PTR6 = reverseName('fd12:3456:789a:8000::5' as IpAddress);

/** What the issue and DESIGN §7 say of each kind of question, in the order of the table in the source. */
const TABLE: readonly (readonly [
  name: string,
  type: string,
  options: QuestionOptions,
  outcome: string,
  answers?: readonly string[],
])[] = [
  // Names of resources
  ['crm.corp.example', 'A', {}, 'NOERROR proxies', IPV4],
  ['crm.corp.example', 'AAAA', {}, 'NOERROR proxies', IPV6],
  ['crm.corp.example', 'ANY', {}, 'NOERROR proxies', [...IPV4, ...IPV6]],
  ['CRM.corp.EXAMPLE', 'A', {}, 'NOERROR proxies', IPV4],
  ['v4.corp.example', 'A', {}, 'NOERROR proxies', IPV4],
  ['v4.corp.example', 'AAAA', {}, 'NOERROR no-data'],
  ['v4.corp.example', 'ANY', {}, 'NOERROR proxies', IPV4],
  ['v6.corp.example', 'A', {}, 'NOERROR no-data'],
  ['v6.corp.example', 'AAAA', {}, 'NOERROR proxies', IPV6],
  ['x.wild.example', 'A', {}, 'NOERROR proxies', IPV4],
  ['wild.example', 'A', {}, 'NOERROR proxies', IPV4],
  ['a.b.deep.example', 'A', {}, 'NOERROR proxies', IPV4],
  ['a.b.deep.example', 'AAAA', {}, 'NOERROR no-data'],
  // One of the resources with this name has IPv4, the other IPv6.
  ['both.deep.example', 'ANY', {}, 'NOERROR proxies', [...IPV4, ...IPV6]],
  ['crm.corp.example', 'HTTPS', {}, 'NOERROR no-data'],
  ['crm.corp.example', 'SVCB', {}, 'NOERROR no-data'],
  ['crm.corp.example', 'MX', {}, 'NOERROR no-data'],
  ['crm.corp.example', 'NS', {}, 'NOERROR no-data'],
  ['crm.corp.example', 'SOA', {}, 'NOERROR no-data'],
  ['crm.corp.example', 'CAA', {}, 'NOERROR no-data'],
  ['crm.corp.example', 'CNAME', {}, 'NOERROR no-data'],
  ['crm.corp.example', 'PTR', {}, 'NOERROR no-data'],
  ['crm.corp.example', 'DS', {}, 'NOERROR no-data'],
  ['crm.corp.example', 'AXFR', {}, 'NOERROR no-data'],
  ['crm.corp.example', 'UNKNOWN_65280', {}, 'NOERROR no-data'],
  ['crm.corp.example', 'SRV', {}, 'ask-site crm.corp.example'],
  ['crm.corp.example', 'TXT', {}, 'ask-site crm.corp.example'],
  ['both.deep.example', 'TXT', {}, 'ask-site both.deep.example'],
  ['x.wild.example', 'TXT', {}, 'ask-site *.wild.example'],
  // What speaks about a resource (RFC 8552)
  ['_sip._tcp.crm.corp.example', 'SRV', {}, 'ask-site crm.corp.example'],
  ['_acme-challenge.crm.corp.example', 'TXT', {}, 'ask-site crm.corp.example'],
  ['_8443._https.crm.corp.example', 'HTTPS', {}, 'NOERROR no-data'],
  ['_443._tcp.crm.corp.example', 'TLSA', {}, 'NOERROR no-data'],
  ['_sip._tcp.crm.corp.example', 'A', {}, 'NOERROR no-data'],
  // Other classes, EDNS
  ['crm.corp.example', 'A', { class: 'ANY' }, 'NOERROR proxies', IPV4],
  ['crm.corp.example', 'TXT', { class: 'CH' }, 'REFUSED refused'],
  ['_sip._tcp.crm.corp.example', 'SRV', { class: 'CH' }, 'REFUSED refused'],
  ['crm.corp.example', 'A', { udpSize: 1232 }, 'NOERROR proxies', IPV4],
  ['crm.corp.example', 'A', { udpSize: 1232, ednsVersion: 1 }, 'BADVERS bad-version'],
  // Reverse names of proxies
  [PROXY_PTR, 'PTR', {}, 'NOERROR proxy-name', ['PTR known.wild.example']],
  [PROXY_PTR6, 'PTR', {}, 'NOERROR proxy-name', ['PTR known.wild.example']],
  [PROXY_PTR, 'ANY', {}, 'NOERROR proxy-name', ['PTR known.wild.example']],
  [PROXY_PTR, 'SOA', {}, 'NOERROR no-data'],
  [PROXY_PTR, 'PTR', { class: 'CH' }, 'REFUSED refused'],
  ['40.0.96.100.in-addr.arpa', 'PTR', {}, 'forward'],
  ['0.96.100.in-addr.arpa', 'NS', {}, 'forward'],
  ['1.1.168.192.in-addr.arpa', 'PTR', {}, 'forward'],
  // The canary of browsers
  ['use-application-dns.net', 'A', {}, 'NXDOMAIN application-dns'],
  ['Use-Application-DNS.net', 'AAAA', {}, 'NXDOMAIN application-dns'],
  ['use-application-dns.net', 'TXT', {}, 'NXDOMAIN application-dns'],
  ['a.use-application-dns.net', 'A', {}, 'forward'],
  // All others
  ['corp.example', 'A', {}, 'forward'],
  ['a.crm.corp.example', 'A', {}, 'forward'],
  ['xcrm.corp.example', 'A', {}, 'forward'],
  ['_dmarc.corp.example', 'TXT', {}, 'forward'],
  ['version.bind', 'TXT', { class: 'CH' }, 'forward'],
  ['example', 'ANY', { udpSize: 4096, ednsVersion: 1 }, 'forward'],
  ['.', 'NS', {}, 'forward'],
];

await t.test('each kind of question has its answer', async (t) => {
  for (const [name, type, options, outcome, answers = []] of TABLE) {
    const { stub, proxies } = scene();
    const isReverse = name === PROXY_PTR || name === PROXY_PTR6;
    if (isReverse) proxies.assign(nameOf('known.wild.example'));
    const query = question(name, type, options);
    const decision = stub.decide(query);
    const what = `${name} ${type} ${JSON.stringify(options)}`;
    t.equal(outcomeOf(decision), outcome, what);
    if (decision.type !== 'answer') continue;
    const message = decode(decision.bytes);
    t.same(
      message.answers?.map(
        (a) => `${a.type} ${'data' in a && typeof a.data === 'string' ? a.data : ''}`,
      ),
      answers,
      `${what}: records`,
    );
    t.equal(message.id, 0x1234);
    t.same(decision.bytes.subarray(12, questionEnd(query)), query.subarray(12, questionEnd(query)));
    t.equal(message.additionals?.length, options.udpSize === undefined ? 0 : 1, 'EDNS as asked');
    for (const answer of message.answers ?? []) t.equal('ttl' in answer && answer.ttl, 1);
    if (outcome.endsWith('no-data') || outcome.startsWith('NXDOMAIN')) {
      const [soa, ...others] = message.authorities ?? [];
      t.same(others, []);
      const isCanary = outcome.startsWith('NXDOMAIN');
      t.match(soa, { type: 'SOA', name, ttl: isCanary ? 60 : 1 });
      t.match(soa, { data: { minimum: isCanary ? 60 : 1, mname: name, rname: '.' } });
    } else t.same(message.authorities, []);
  }
});

await t.test('a private name never leaves: no type of it is forwarded or NXDOMAIN', async (t) => {
  const { stub } = scene();
  const query = question('crm.corp.example', 'A');
  const typeAt = query.length - 4;
  const below = question('_x._y.crm.corp.example', 'A');
  for (let type = 0; type < 65_536; type++) {
    for (const bytes of [query, below]) {
      const at = bytes === query ? typeAt : below.length - 4;
      bytes[at] = type >> 8;
      bytes[at + 1] = type & 0xff;
      const decision = stub.decide(bytes);
      const isKept =
        decision.type === 'ask-site'
          ? type === 16 || type === 33
          : decision.type === 'answer' && ((decision.bytes[3] ?? 0) & 15) === 0;
      if (!isKept) t.fail(`type ${type}: ${outcomeOf(decision)}`);
    }
  }
  t.pass();
});

await t.test('what is no query is dropped, refused or not implemented', async (t) => {
  const { stub } = scene();
  const query = question('crm.corp.example', 'A');
  const changed = (offset: number, value: number) => {
    const bytes = query.slice();
    bytes[offset] = value;
    return bytes;
  };
  t.same(stub.decide(new Uint8Array(0)), { type: 'drop' });
  t.same(stub.decide(query.subarray(0, 11)), { type: 'drop' });
  t.same(stub.decide(changed(2, 0x81)), { type: 'drop' }, 'a response');
  t.equal(outcomeOf(stub.decide(changed(2, 0x21))), 'NOTIMP not-implemented', 'NOTIFY');
  t.equal(outcomeOf(stub.decide(changed(2, 0x29))), 'NOTIMP not-implemented', 'UPDATE');
  t.equal(outcomeOf(stub.decide(changed(5, 0))), 'FORMERR format-error', 'no question');
  t.equal(outcomeOf(stub.decide(changed(5, 2))), 'FORMERR format-error', 'two questions');
  t.equal(
    outcomeOf(stub.decide(changed(12, 0x3f))),
    'FORMERR format-error',
    'a label over the end',
  );
  t.equal(outcomeOf(stub.decide(changed(12, 0xc0))), 'FORMERR format-error', 'a pointer');
  t.equal(outcomeOf(stub.decide(query.subarray(0, 20))), 'FORMERR format-error', 'cut off');

  const notify = stub.decide(changed(2, 0x21));
  if (notify.type !== 'answer') return t.fail();
  t.match(decode(notify.bytes), {
    id: 0x1234,
    type: 'response',
    opcode: 'NOTIFY',
    questions: [{ name: 'crm.corp.example' }],
    answers: [],
    additionals: [],
  });
  const none = stub.decide(changed(5, 0));
  t.equal(none.type === 'answer' && none.bytes.length, 12, 'a header alone');
  return undefined;
});

await t.test('the case of the question comes back, and names of odd bytes are names', async (t) => {
  const odd = resources({ '*.wild.example': 'dual' });
  const stub = new StubResolver(odd, pool());
  const query = question('xXx.wILd.eXample', 'A');
  query.set([0xff, 0x2e, 0x00], 13);
  const decision = stub.decide(query);
  if (decision.type !== 'answer') return t.fail(decision.type);
  t.same(decision.bytes.subarray(0, 2), query.subarray(0, 2));
  t.same(decision.bytes.subarray(12, query.length), query.subarray(12));
  t.equal(decision.lookup?.name, '\\255\\046\\000.wild.example');
  return undefined;
});

await t.test(
  'a lookup tells name, resources and the families that their stacks allow',
  async (t) => {
    const { stub } = scene();
    const decision = stub.decide(question('Both.deep.example', 'A'));
    t.match(decision, {
      lookup: {
        name: 'both.deep.example',
        resources: [{ id: 'both.deep.example' }, { id: '**.deep.example' }],
        families: [4, 6],
      },
    });
    t.match(stub.decide(question('v6.corp.example', 'A')), {
      reason: 'no-data',
      lookup: { families: [6] },
    });
    const https = stub.decide(question('crm.corp.example', 'HTTPS'));
    t.notOk('lookup' in https, 'only addresses are about to be used');
  },
);

await t.test('without proxies left a new name gets SERVFAIL, known ones go on', async (t) => {
  const small = new ProxyPool({ ipv4: prefixOf('100.96.0.0/29'), ipv6: RANGES.ipv6 });
  const stub = new StubResolver(resources({ '*.wild.example': 'dual' }), small);
  t.equal(outcomeOf(stub.decide(question('a.wild.example', 'A'))), 'NOERROR proxies');
  t.equal(outcomeOf(stub.decide(question('b.wild.example', 'A'))), 'SERVFAIL proxies-exhausted');
  t.equal(outcomeOf(stub.decide(question('b.wild.example', 'MX'))), 'NOERROR no-data');
  t.equal(outcomeOf(stub.decide(question('a.wild.example', 'AAAA'))), 'NOERROR proxies');
});

await t.test('flags: RD, CD and DO as asked, RA set, AD never', async (t) => {
  const { stub } = scene();
  const decision = stub.decide(
    question('crm.corp.example', 'A', {
      flags: 0x0130,
      udpSize: 4096,
      isDnssecOk: true,
    }),
  );
  if (decision.type !== 'answer') return t.fail();
  t.match(decode(decision.bytes), {
    flag_aa: true,
    flag_tc: false,
    flag_rd: true,
    flag_ra: true,
    flag_ad: false,
    flag_cd: true,
    additionals: [{ type: 'OPT', udpPayloadSize: 1232, flag_do: true }],
  });
  return undefined;
});

await t.test('the largest answers fit into 512 bytes', async (t) => {
  const label = 'a'.repeat(63);
  const name = `${label}.${label}.${label}.${'a'.repeat(44)}.wild.example`;
  const proxies = pool();
  const stub = new StubResolver(resources({ '**.wild.example': 'dual' }), proxies);
  for (const [asked, type] of [
    [name, 'ANY'],
    [name, 'MX'],
    [PROXY_PTR6, 'PTR'],
  ] as const) {
    const decision = stub.decide(question(asked, type, { udpSize: 512 }));
    if (decision.type !== 'answer') return t.fail(decision.type);
    t.ok(decision.bytes.length <= 512, `${type}: ${decision.bytes.length}`);
    t.ok(readRecords(decision.bytes, questionEnd(question(asked, type))));
  }
  return undefined;
});

function scene() {
  const proxies = pool();
  return { proxies, stub: new StubResolver(resources(PATTERNS), proxies) };
}

function questionEnd(query: Uint8Array): number {
  const decoded = decodeQuery(query);
  if (!decoded.ok) throw new Error(decoded.why);
  return decoded.value.questionEnd;
}

function outcomeOf(decision: StubDecision<TestResource>): string {
  if (decision.type === 'ask-site') return `ask-site ${decision.resource.id}`;
  if (decision.type !== 'answer') return decision.type;
  const low = (decision.bytes[3] ?? 0) & 15;
  const message = decode(decision.bytes);
  const [opt] = message.additionals ?? [];
  const high = opt?.type === 'OPT' ? opt.extendedRcode : 0;
  const codes: Record<number, string> = {
    0: 'NOERROR',
    1: 'FORMERR',
    2: 'SERVFAIL',
    3: 'NXDOMAIN',
    4: 'NOTIMP',
    5: 'REFUSED',
    16: 'BADVERS',
  };
  return `${codes[(high << 4) | low]} ${decision.reason}`;
}
