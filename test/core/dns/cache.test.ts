import * as dnsPacket from 'dns-packet';
import t from 'tap';
import { DnsCache } from '../../../core/dns/cache.ts';
import { decodeQuery, type Query } from '../../../core/dns/message.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import {
  decode,
  OPT_OF_SERVER,
  question,
  record,
  reply,
  soa,
  type AnswerOptions,
  type QuestionOptions,
} from './messages.ts';

const A = [record('www.example', 'A', '198.51.100.1', 60)];

await t.test('an answer is kept for its shortest TTL, which counts down', async (t) => {
  const cache = new DnsCache();
  const answers = [
    record('www.example', 'CNAME', 'web.example', 300),
    record('web.example', 'A', '198.51.100.1', 60),
    record('web.example', 'A', '198.51.100.2', 120),
  ];
  store(cache, {}, { answers, additionals: [record('x.example', 'A', '198.51.100.9', 3600)] });
  t.same(ttls(cache, 0), [300, 60, 120, 3600]);
  t.same(ttls(cache, 1_999), [299, 59, 119, 3599]);
  t.same(ttls(cache, 59_999), [241, 1, 61, 3541]);
  t.equal(ttls(cache, 60_000), undefined);
  t.equal(cache.size, 0);
  t.equal(cache.bytes, 0);
});

await t.test('the id, the case of the question, RD and CD are those of the client', async (t) => {
  const cache = new DnsCache();
  store(cache, {}, { answers: A, flags: dnsPacket.AUTHORITATIVE_ANSWER });
  const query = queryOf('WWW.exAmple', 'A', { id: 77 });
  const bytes = cache.answer(query, instantAt(0));
  if (bytes === undefined) return t.fail();
  t.same(bytes.subarray(12, query.questionEnd), query.bytes.subarray(12, query.questionEnd));
  t.match(decode(bytes), {
    id: 77,
    flag_qr: true,
    flag_rd: true,
    flag_ra: true,
    flag_aa: false,
    answers: [{ data: '198.51.100.1' }],
  });
  return undefined;
});

await t.test('NXDOMAIN and NODATA are kept as long as their SOA says (RFC 2308)', async (t) => {
  const cases: [AnswerOptions, number | undefined][] = [
    [{ rcode: 3, authorities: [soa('example', 300, 60)] }, 60],
    [{ rcode: 3, authorities: [soa('example', 60, 300)] }, 60],
    [{ rcode: 0, authorities: [soa('example', 900, 900)] }, 900],
    [{ rcode: 3, authorities: [soa('example', 86_400, 86_400)] }, 10_800],
    [{ rcode: 3 }, undefined],
    [{ rcode: 0 }, undefined],
    [{ rcode: 3, authorities: [soa('example', 60, 0)] }, undefined],
    [
      {
        rcode: 3,
        answers: [record('www.example', 'CNAME', 'gone.example', 20)],
        authorities: [soa('example', 300, 60)],
      },
      20,
    ],
    // A CNAME to a name without this type, and a referral
    [{ answers: [record('www.example', 'CNAME', 'web.example', 20)] }, undefined],
    [{ authorities: [{ type: 'NS', name: 'example', ttl: 60, data: 'ns.example' }] }, undefined],
  ];
  for (const [i, [options, seconds]] of cases.entries()) {
    const cache = new DnsCache();
    store(cache, {}, options);
    if (seconds === undefined) t.equal(cache.size, 0, `${i}`);
    else {
      t.ok(ttls(cache, seconds * 1000 - 1), `${i}`);
      t.notOk(ttls(cache, seconds * 1000), `${i}`);
    }
  }
});

await t.test('failures and truncated, signed or broken answers are not kept', async (t) => {
  const good = reply(question('www.example', 'A'), { answers: A });
  const cut = good.subarray(0, -1);
  const signed = reply(question('www.example', 'A'), {
    answers: A,
    additionals: [OPT_OF_SERVER, record('x', 'A', '192.0.2.1')],
  });
  const forever = reply(question('www.example', 'A'), {
    answers: [record('www.example', 'A', '198.51.100.1', 0xffff_ffff)],
  });
  const bad = [
    reply(question('www.example', 'A'), { rcode: 2, answers: A }),
    reply(question('www.example', 'A'), { rcode: 5, answers: A }),
    reply(question('www.example', 'A'), { answers: A, flags: dnsPacket.TRUNCATED_RESPONSE }),
    reply(question('www.example', 'A'), { answers: [record('www.example', 'A', '192.0.2.1', 0)] }),
    question('www.example', 'A'),
    cut,
    signed,
    forever,
    new Uint8Array(5000),
    new Uint8Array(0),
  ];
  for (const [i, bytes] of bad.entries()) {
    const cache = new DnsCache();
    cache.store(queryOf('www.example', 'A'), bytes, instantAt(0));
    t.equal(cache.size, 0, `${i}`);
  }
});

await t.test('a TTL of years becomes a day', async (t) => {
  const cache = new DnsCache();
  store(cache, {}, { answers: [record('www.example', 'A', '198.51.100.1', 1_000_000)] });
  t.same(ttls(cache, 0), [86_400]);
  t.ok(ttls(cache, 86_399_000));
  t.notOk(ttls(cache, 86_400_000));
});

await t.test(
  'EDNS is between us and each client: ours is added where it was asked for',
  async (t) => {
    const cache = new DnsCache();
    store(cache, { udpSize: 1232 }, { answers: A, additionals: [OPT_OF_SERVER] });
    const plain = cache.answer(queryOf('www.example', 'A'), instantAt(0));
    t.same(plain && decode(plain).additionals, []);
    const edns = cache.answer(queryOf('www.example', 'A', { udpSize: 4096 }), instantAt(0));
    t.match(edns && decode(edns).additionals, [{ type: 'OPT', udpPayloadSize: 1232 }]);
  },
);

await t.test('type, DO and CD are part of the question', async (t) => {
  const cache = new DnsCache();
  store(cache, {}, { answers: A });
  const others: [string, QuestionOptions][] = [
    ['AAAA', {}],
    ['A', { udpSize: 1232, isDnssecOk: true }],
    ['A', { flags: dnsPacket.RECURSION_DESIRED | dnsPacket.CHECKING_DISABLED }],
  ];
  for (const [type, options] of others) {
    t.notOk(cache.answer(queryOf('www.example', type, options), instantAt(0)));
  }
  t.notOk(cache.answer(queryOf('ww.example', 'A'), instantAt(0)));
  t.ok(cache.answer(queryOf('www.example', 'A'), instantAt(0)));
});

await t.test('AD comes back to who asked for it (RFC 6840)', async (t) => {
  const cache = new DnsCache();
  store(cache, {}, { answers: A, flags: dnsPacket.AUTHENTIC_DATA });
  const isAuthentic = (flags: number) => {
    const bytes = cache.answer(queryOf('www.example', 'A', { flags }), instantAt(0));
    return bytes && decode(bytes).flag_ad;
  };
  t.equal(isAuthentic(dnsPacket.RECURSION_DESIRED), false);
  t.equal(isAuthentic(dnsPacket.RECURSION_DESIRED | dnsPacket.AUTHENTIC_DATA), true);
});

await t.test('what depends on more than the question is asked each time', async (t) => {
  const special: QuestionOptions[] = [
    { class: 'CH' },
    { flags: 0 },
    { udpSize: 1232, ednsVersion: 1 },
    { udpSize: 1232, options: [{ code: 8, ip: '192.0.2.0', sourcePrefixLength: 24 }] },
  ];
  for (const options of special) {
    const cache = new DnsCache();
    store(cache, options, { answers: A });
    t.equal(cache.size, 0);
    store(cache, {}, { answers: A });
    t.notOk(cache.answer(queryOf('www.example', 'A', options), instantAt(0)));
  }
});

await t.test('a full cache drops what was not asked for the longest', async (t) => {
  const cache = new DnsCache(10_000);
  const at = (i: number) => queryOf(`host${i}.example`, 'A');
  const ask = (i: number) => cache.answer(at(i), instantAt(0)) !== undefined;
  for (let i = 0; i < 200; i++) {
    const { bytes } = at(i);
    const name = `host${i}.example`;
    cache.store(at(i), reply(bytes, { answers: [record(name, 'A', '192.0.2.1')] }), instantAt(0));
    t.ok(cache.bytes <= 10_000);
    ask(0);
  }
  t.ok(ask(0), 'asked for all the time');
  t.ok(ask(199));
  t.notOk(ask(1));
  t.ok(cache.size > 20 && cache.size < 50, `${cache.size}`);
  cache.flush();
  t.equal(cache.size, 0);
  t.equal(cache.bytes, 0);
  t.notOk(ask(199));
});

await t.test('a newer answer replaces an older one', async (t) => {
  const cache = new DnsCache();
  store(cache, {}, { answers: A });
  const { bytes } = cache;
  store(cache, {}, { answers: [record('www.example', 'A', '198.51.100.2', 60)] });
  t.equal(cache.bytes, bytes);
  const answer = cache.answer(queryOf('www.example', 'A'), instantAt(0));
  t.match(answer && decode(answer).answers, [{ data: '198.51.100.2' }]);
});

function store(cache: DnsCache, options: QuestionOptions, answer: AnswerOptions): void {
  const query = queryOf('www.example', 'A', options);
  cache.store(query, reply(query.bytes, answer), instantAt(0));
}

function ttls(cache: DnsCache, at: number): unknown {
  const bytes = cache.answer(queryOf('www.example', 'A'), instantAt(at));
  if (bytes === undefined) return undefined;
  const { answers = [], additionals = [] } = decode(bytes);
  return [...answers, ...additionals].map((one) => 'ttl' in one && one.ttl);
}

function queryOf(name: string, type: string, options: QuestionOptions = {}): Query {
  const decoded = decodeQuery(question(name, type, options));
  if (!decoded.ok) throw new Error(decoded.why);
  return decoded.value;
}
