import * as dnsPacket from 'dns-packet';
import t from 'tap';
import { encodeQuery, encodeRefusal, udpSizeOf } from '../../../core/dns/answer.ts';
import { decodeQuery, decodeResponse, readRecords } from '../../../core/dns/message.ts';
import { RCODE, TYPE } from '../../../core/dns/numbers.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { decode, nameOf, OPT_OF_SERVER, question, record, reply, soa } from './messages.ts';

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);

await t.test('a query is read as dns-packet wrote it', async (t) => {
  const bytes = question('Crm.Corp.example', 'AAAA', {
    id: 0xbeef,
    udpSize: 1400,
    isDnssecOk: true,
    options: [{ code: 'COOKIE', data: Buffer.alloc(8) }],
  });
  t.match(decodeQuery(bytes), {
    ok: true,
    value: {
      id: 0xbeef,
      flags: 0x0100,
      question: { name: 'crm.corp.example', type: TYPE.AAAA, class: 1 },
      questionEnd: 12 + 18 + 4,
      edns: { udpSize: 1400, version: 0, isDnssecOk: true, hasClientSubnet: false },
    },
  });
  const subnet = question('a.example', 'A', {
    udpSize: 1400,
    options: [{ code: 'CLIENT_SUBNET', ip: '192.0.2.0', sourcePrefixLength: 24 }],
  });
  t.match(decodeQuery(subnet), { value: { edns: { hasClientSubnet: true } } });
  t.match(decodeQuery(question('a.example', 'A')), { value: { edns: undefined } });
});

await t.test('EDNS that cannot be read does not make a query malformed', async (t) => {
  const bytes = question('a.example', 'A', { udpSize: 1400 });
  for (let end = bytes.length - 1; end >= bytes.length - 11; end--) {
    t.match(decodeQuery(bytes.subarray(0, end)), { ok: true, value: { edns: undefined } });
  }
});

await t.test('a query of ours is read by dns-packet', async (t) => {
  t.match(decode(encodeQuery({ name: nameOf('Crm.example'), type: TYPE.SRV }, 7)), {
    id: 7,
    type: 'query',
    flag_rd: true,
    questions: [{ name: 'crm.example', type: 'SRV', class: 'IN' }],
  });
});

await t.test('records are found where dns-packet put them', async (t) => {
  const bytes = reply(question('www.example', 'A'), {
    answers: [
      record('www.example', 'CNAME', 'web.example', 300),
      record('web.example', 'A', '192.0.2.1', 60),
    ],
    authorities: [soa('example', 900, 30)],
    additionals: [OPT_OF_SERVER],
  });
  const response = decodeResponse(bytes);
  t.match(response, { id: 0x1234, rcode: 0, question: { name: 'www.example', type: 1 } });
  const records = readRecords(bytes, response?.questionEnd ?? 0);
  t.match(records, [
    { section: 'answer', type: TYPE.CNAME, ttl: 300 },
    { section: 'answer', type: TYPE.A, ttl: 60 },
    { section: 'authority', type: TYPE.SOA, ttl: 900 },
    { section: 'additional', type: TYPE.OPT },
  ]);
  t.same(bytes.subarray(records?.[1]?.dataOffset, records?.[1]?.end), Uint8Array.of(192, 0, 2, 1));
  t.equal(records?.at(-1)?.end, bytes.length);
  t.equal(readRecords(bytes.subarray(0, -1), response?.questionEnd ?? 0), undefined);
});

await t.test('a response of something else is none', async (t) => {
  const bytes = reply(question('www.example', 'A'));
  t.ok(decodeResponse(bytes));
  t.equal(decodeResponse(question('www.example', 'A')), undefined);
  const notify = bytes.slice();
  notify[2] = 0xa0;
  t.equal(decodeResponse(notify), undefined);
  const none = bytes.slice();
  none[5] = 0;
  t.equal(decodeResponse(none), undefined);
  t.equal(decodeResponse(bytes.subarray(0, 11)), undefined);
});

await t.test('a refusal repeats the question that could be read', async (t) => {
  const bytes = encodeRefusal(question('www.example', 'A', { udpSize: 1232 }), RCODE.NOTIMP);
  t.match(decode(bytes), { id: 0x1234, rcode: 'NOTIMP', questions: [{ name: 'www.example' }] });
  t.same(decode(bytes).additionals, []);
});

await t.test('clients take 512 bytes at least, and 4 KB at most from us', async (t) => {
  const edns = { version: 0, isDnssecOk: false, hasClientSubnet: false };
  t.equal(udpSizeOf(undefined), 512);
  for (const [said, taken] of [
    [0, 512],
    [600, 600],
    [65_535, 4096],
  ] as const) {
    t.equal(udpSizeOf({ ...edns, udpSize: said }), taken);
  }
});

await t.test(`300,000 mutated messages are read or refused (SEED=${SEED})`, async (t) => {
  const random = new SeededRandom(SEED);
  const whole = [
    question('crm.corp.example', 'A', { udpSize: 1232, isDnssecOk: true }),
    reply(question('crm.corp.example', 'A'), {
      answers: [1, 2, 3, 4].map((i) => record('crm.corp.example', 'A', `100.96.0.${i}`)),
      authorities: [soa('corp.example', 60, 60)],
      additionals: [OPT_OF_SERVER],
    }),
  ] as const;
  const counts = { queries: 0, responses: 0, records: 0, disagreements: 0 };
  const start = performance.now();
  for (let i = 0; i < 300_000; i++) {
    const bytes = (whole[i % 2] ?? whole[0]).slice(0, i % 7 === 0 ? random.next() % 60 : undefined);
    for (let n = 1 + (random.next() % 6); n > 0 && bytes.length > 0; n--) {
      bytes[random.next() % bytes.length] = random.next() & 0xff;
    }
    const query = decodeQuery(bytes);
    const response = decodeResponse(bytes);
    const records = response && readRecords(bytes, response.questionEnd);
    if (query.ok) counts.queries++;
    if (response !== undefined) counts.responses++;
    if (records !== undefined) counts.records++;
    encodeRefusal(bytes, RCODE.FORMERR);
    // What dns-packet reads whole, we read the same way.
    if (i % 30 === 0 && records !== undefined && !agrees(bytes, records.length)) {
      counts.disagreements++;
    }
  }
  t.comment(`${(performance.now() - start).toFixed(0)} ms ${JSON.stringify(counts)}`);
  t.ok(counts.queries > 0 && counts.responses > 0 && counts.records > 0);
  t.equal(counts.disagreements, 0);
});

function agrees(bytes: Uint8Array, records: number): boolean {
  let message: dnsPacket.DecodedPacket;
  try {
    message = dnsPacket.decode(Buffer.from(bytes));
  } catch {
    // It also reads what is within the records.
    return true;
  }
  const { answers = [], authorities = [], additionals = [] } = message;
  return answers.length + authorities.length + additionals.length === records;
}
