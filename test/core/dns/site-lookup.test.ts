import * as dnsPacket from 'dns-packet';
import t from 'tap';
import { MOST_WAITING } from '../../../core/dns/forwarder.ts';
import { MOST_ALIASES } from '../../../core/dns/record.ts';
import {
  LOOKUP_PATIENCE,
  MOST_ADDRESSES,
  MOST_LOOKUPS,
  MOST_OPEN_QUESTIONS,
  SiteLookup,
  type SiteLookupEvent,
  type SiteQuestion,
} from '../../../core/dns/site-lookup.ts';
import { after, instantAt } from '../../../core/sansio/instant.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { tcp, udp } from './forwarder-scene.ts';
import { decode, nameOf, question, record, reply, soa, type AnswerOptions } from './messages.ts';
import { SiteScene, type SiteServer } from './site-lookup-scene.ts';

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
const NOW = instantAt(0);
const NAME = 'db.site.example';
const V4 = [record(NAME, 'A', '192.168.7.5')];
const V6 = [record(NAME, 'AAAA', 'fd00::5')];

await t.test('A and AAAA are asked at once, and IPv4 addresses come first', async (t) => {
  const scene = new SiteScene(zone({ A: { answers: V4 }, AAAA: { answers: V6 } }));
  scene.lookUp(NAME);
  t.same(scene.asked, [`A ${NAME} udp`, `AAAA ${NAME} udp`]);
  scene.run(1_000);
  t.same(scene.resolved, [{ at: 20, name: NAME, result: ['192.168.7.5', 'fd00::5'] }]);
  t.equal(scene.lookup.pollTimeout(), undefined, 'nothing left to wait for');
  t.equal(scene.lookup.size, 0);
});

await t.test('the order of the answers is kept, and nothing is named twice', async (t) => {
  const addresses = ['10.0.0.9', '10.0.0.1', '10.0.0.9', '10.0.0.5'];
  const answers = addresses.map((address) => record(NAME, 'A', address));
  const scene = new SiteScene(zone({ A: { answers } }));
  t.same(scene.resolve(NAME), ['10.0.0.9', '10.0.0.1', '10.0.0.5']);
});

await t.test('several requests for one name are one, with one event', async (t) => {
  const scene = new SiteScene(zone({ A: { answers: V4 } }));
  scene.lookUp(NAME, NAME);
  scene.run(10);
  scene.lookUp(NAME);
  scene.run(1_000);
  t.equal(scene.asked.length, 2);
  t.equal(scene.resolved.length, 1);
});

await t.test('answers hold for their time to live, and no longer', async (t) => {
  const answers = [record(NAME, 'A', '192.168.7.5', 30)];
  const authorities = [soa('site.example', 300, 20)];
  const scene = new SiteScene(zone({ A: { answers }, AAAA: { authorities } }));
  scene.resolve(NAME);
  scene.server = zone({ A: { answers: [record(NAME, 'A', '192.168.7.6', 30)] }, AAAA: {} });
  scene.lookUp(NAME);
  t.same(scene.resolved.at(-1)?.result, ['192.168.7.5'], 'at once');
  t.equal(scene.asked.length, 2, 'and not asked');
  scene.run(30_000);
  t.same(scene.resolve(NAME), ['192.168.7.6']);
  t.equal(scene.asked.length, 4);
});

await t.test('a name of a hosts file is not asked for, in neither family', async (t) => {
  const scene = new SiteScene(zone({ A: { answers: V4 }, AAAA: { answers: V6 } }));
  scene.setHosts(`fd00::9 nas\n192.168.7.9 ${NAME.toUpperCase()} nas\n0.0.0.0 ads.example`);
  scene.lookUp(NAME, 'nas', 'ads.example');
  t.same(
    scene.resolved.map(({ result }) => result),
    [['192.168.7.9'], ['192.168.7.9', 'fd00::9'], []],
  );
  t.same(scene.asked, []);
  scene.setHosts('');
  t.same(scene.resolve(NAME), ['192.168.7.5', 'fd00::5']);
});

await t.test('a name without addresses, or that is none, has no addresses', async (t) => {
  const scene = new SiteScene(zone({ A: { answers: V4 }, AAAA: {} }));
  t.same(scene.resolve(NAME), ['192.168.7.5']);
  t.same(new SiteScene(zone({})).resolve(NAME), []);
  t.same(new SiteScene(zone({ A: { rcode: 3 }, AAAA: { rcode: 3 } })).resolve(NAME), []);
  const forged = new SiteScene(zone({ A: { rcode: 3, answers: V4 }, AAAA: { rcode: 3 } }));
  t.same(forged.resolve(NAME), [], 'whatever stands beside NXDOMAIN');
});

await t.test(
  'if one family fails, the other is the result; without it nothing is known',
  async (t) => {
    const bad = { rcode: 2 };
    t.same(new SiteScene(zone({ A: { answers: V4 }, AAAA: bad })).resolve(NAME), ['192.168.7.5']);
    t.same(new SiteScene(zone({ A: bad, AAAA: { answers: V6 } })).resolve(NAME), ['fd00::5']);
    t.equal(new SiteScene(zone({ A: bad, AAAA: bad })).resolve(NAME), 'no-answer');
    t.equal(new SiteScene(zone({ A: {}, AAAA: bad })).resolve(NAME), 'no-answer');
    t.equal(
      new SiteScene(zone({ A: { rcode: 5 }, AAAA: { rcode: 4 } })).resolve(NAME),
      'no-answer',
    );
  },
);

await t.test('servers that say nothing are given up', async (t) => {
  const scene = new SiteScene(() => undefined);
  t.equal(scene.resolve(NAME), 'no-answer');
  t.match(scene.resolved, [{ at: 5_000 }], 'when the forwarder does');
});

await t.test('a lookup is over after 10 s, whoever carries its questions', async (t) => {
  const lookup = new SiteLookup();
  lookup.lookUp(nameOf(NAME), NOW);
  const [a, aaaa] = drain(lookup).questions;
  if (a === undefined || aaaa === undefined) throw new Error('not asked');
  t.equal(lookup.pollTimeout()?.at, LOOKUP_PATIENCE);
  lookup.handleAnswer(a.client, reply(a.bytes, { answers: V4 }), NOW);
  t.same(drain(lookup).events, []);
  const end = after(NOW, LOOKUP_PATIENCE);
  lookup.handleTimeout(end);
  t.match(drain(lookup).events, [{ outcome: { ok: true, value: ['192.168.7.5'] } }]);
  t.equal(lookup.pollTimeout(), undefined);
  lookup.lookUp(nameOf(NAME), end);
  const again = drain(lookup).questions;
  t.ok(lookup.isOurs(aaaa.client));
  lookup.handleAnswer(aaaa.client, reply(aaaa.bytes, { answers: V6 }), end);
  for (const one of again) lookup.handleAnswer(one.client, reply(one.bytes), end);
  t.match(
    drain(lookup).events,
    [{ outcome: { value: [] } }],
    'a late answer is not of the next one',
  );
});

await t.test('an answer that UDP cuts off is asked for again over TCP', async (t) => {
  const many = Array.from({ length: 40 }, (_, i) => record(NAME, 'A', `10.1.0.${i + 1}`));
  const scene = new SiteScene((query, transport) =>
    transport === 'udp'
      ? reply(query, { answers: many.slice(0, 3), flags: dnsPacket.TRUNCATED_RESPONSE })
      : zone({ A: { answers: many } })(query, transport),
  );
  t.equal(scene.resolve(NAME)?.length, 40);
  t.same(scene.asked.slice(2), [`A ${NAME} tcp`, `AAAA ${NAME} tcp`]);
});

await t.test('what is truncated over TCP too is no answer', async (t) => {
  const flags = dnsPacket.TRUNCATED_RESPONSE;
  const scene = new SiteScene((query) => reply(query, { answers: V4, flags }));
  t.equal(scene.resolve(NAME), 'no-answer');
});

await t.test('chains of aliases are followed, in any order of the records', async (t) => {
  const answers = [
    record('web.cdn.example', 'A', '10.2.0.1'),
    record('lb.site.example', 'CNAME', 'WEB.cdn.example'),
    record('web.cdn.example', 'A', '10.2.0.2'),
    record(NAME, 'CNAME', 'lb.site.example'),
  ];
  t.same(new SiteScene(zone({ A: { answers } })).resolve(NAME), ['10.2.0.1', '10.2.0.2']);
  const open = { answers: [record(NAME, 'CNAME', 'gone.example')] };
  t.same(new SiteScene(zone({ A: open, AAAA: open })).resolve(NAME), [], 'one that leads nowhere');
});

await t.test('chains of aliases are bounded', async (t) => {
  const chain = (aliases: number) => ({
    answers: [
      ...Array.from({ length: aliases }, (_, i) =>
        record(i === 0 ? NAME : `c${i}.example`, 'CNAME', `c${i + 1}.example`),
      ),
      record(`c${aliases}.example`, 'A', '10.2.0.1'),
    ],
  });
  t.same(new SiteScene(zone({ A: chain(MOST_ALIASES) })).resolve(NAME), ['10.2.0.1']);
  const long = chain(MOST_ALIASES + 1);
  t.equal(new SiteScene(zone({ A: long, AAAA: long })).resolve(NAME), 'no-answer');
  const loop = {
    answers: [record(NAME, 'CNAME', 'b.example'), record('b.example', 'CNAME', NAME)],
  };
  t.equal(new SiteScene(zone({ A: loop, AAAA: loop })).resolve(NAME), 'no-answer');
});

await t.test(
  'records of other names, classes, types, sections and lengths are no answer',
  async (t) => {
    const scene = new SiteScene(
      zone({
        A: {
          answers: [
            record('other.example', 'A', '10.3.0.1'),
            { name: NAME, type: 'A', class: 'CH', data: '10.3.0.2' },
            record(NAME, 'AAAA', 'fd00::3'),
            { name: NAME, type: 'TXT', data: 'abcd' },
            { name: NAME, type: 'UNKNOWN_65400', data: Buffer.from([10, 3, 0, 4]) } as never,
          ],
          authorities: [record(NAME, 'A', '10.3.0.5')],
          additionals: [record(NAME, 'A', '10.3.0.6')],
        },
      }),
    );
    t.same(scene.resolve(NAME), []);

    const lookup = new SiteLookup();
    lookup.lookUp(nameOf(NAME), NOW);
    for (const { client, bytes } of drain(lookup).questions) {
      const said = reply(bytes, { answers: [...V4, ...V6] });
      // The length of the data of the last record: 16 becomes 4, so that its end is missing.
      said[said.length - 17] = 4;
      lookup.handleAnswer(client, said.slice(0, -12), NOW);
    }
    t.match(drain(lookup).events, [{ outcome: { value: ['192.168.7.5'] } }]);
  },
);

await t.test('what is no answer to the question is none', async (t) => {
  const wrong: readonly ((query: Uint8Array) => Uint8Array)[] = [
    () => new Uint8Array(0),
    (query) => query,
    () =>
      reply(question('other.example', 'A'), {
        answers: [record('other.example', 'A', '10.0.0.1')],
      }),
    () => reply(question(NAME, 'TXT')),
    (query) => reply(query, { answers: V4 }).slice(0, -1),
  ];
  for (const said of wrong) {
    const lookup = new SiteLookup();
    lookup.lookUp(nameOf(NAME), NOW);
    const { questions } = drain(lookup);
    for (const one of questions) lookup.handleAnswer(one.client, said(one.bytes), NOW);
    t.match(drain(lookup).events, [{ outcome: { why: 'no-answer' } }], String(said));
  }
});

await t.test(
  'addresses that can be no target are left out: the gateway itself, links, all',
  async (t) => {
    const a = ['127.0.0.1', '0.0.0.0', '169.254.1.1', '224.0.0.251', '255.255.255.255', '10.0.0.1'];
    const aaaa = ['::1', '::', 'fe80::1', 'ff02::fb', '::ffff:127.0.0.1', '::127.0.0.1', 'fd00::1'];
    const scene = new SiteScene(
      zone({
        A: { answers: a.map((address) => record(NAME, 'A', address)) },
        AAAA: { answers: aaaa.map((address) => record(NAME, 'AAAA', address)) },
      }),
    );
    t.same(scene.resolve(NAME), ['10.0.0.1', 'fd00::1']);
    scene.setHosts([...a, ...aaaa].map((address) => `${address} gw`).join('\n'));
    t.same(scene.resolve('gw'), ['10.0.0.1', 'fd00::1']);
  },
);

await t.test('an answer has a bounded number of addresses', async (t) => {
  const a = Array.from({ length: 300 }, (_, i) => record(NAME, 'A', `10.4.${i >> 8}.${i & 255}`));
  const aaaa = a.map((_, i) => record(NAME, 'AAAA', `fd00::${(i + 1).toString(16)}`));
  const result = new SiteScene(zone({ A: { answers: a }, AAAA: { answers: aaaa } })).resolve(NAME);
  t.equal(result?.length, 2 * MOST_ADDRESSES);
  t.equal(result?.[MOST_ADDRESSES - 1], '10.4.0.63');
});

await t.test('a thousand names are looked up at once, and one more fails', async (t) => {
  const scene = new SiteScene(echo);
  const names = Array.from({ length: MOST_LOOKUPS + 1 }, (_, i) => `h${i}.example`);
  scene.lookUp(...names);
  t.same(scene.resolved, [{ at: 0, name: `h${MOST_LOOKUPS}.example`, result: 'too-many-lookups' }]);
  t.equal(scene.asked.length, MOST_OPEN_QUESTIONS);
  scene.resolver.handleQuery(udp('lan'), question('lan.example', 'A'), scene.now);
  t.ok(MOST_OPEN_QUESTIONS < MOST_WAITING, 'the LAN has places left');
  scene.run(1_000);
  t.equal(scene.resolved.length, MOST_LOOKUPS + 1);
  const results = new Set(scene.resolved.slice(1).map(({ result }) => String(result)));
  t.same(results, new Set(['10.5.0.1']));
  t.match(scene.responses, [{ source: 'lan' }]);
  t.match(decode(scene.responses[0]?.bytes ?? new Uint8Array(0)), { rcode: 'NOERROR' });
});

await t.test(
  'a thousand names that nobody answers are over after 10 s, and new ones go on',
  async (t) => {
    const scene = new SiteScene(() => undefined);
    scene.lookUp(...Array.from({ length: MOST_LOOKUPS }, (_, i) => `h${i}.example`));
    scene.run(LOOKUP_PATIENCE);
    t.equal(scene.resolved.length, MOST_LOOKUPS);
    t.equal(scene.lookup.size, 0);
    scene.server = echo;
    t.same(scene.resolve('late.example'), ['10.5.0.1']);
  },
);

await t.test('a gateway is never told its own proxies, and the LAN still is', async (t) => {
  const server = zone({ A: { answers: [record('crm.corp.example', 'A', '10.6.0.1')] } });
  const scene = new SiteScene(server);
  t.same(scene.resolve('crm.corp.example'), ['10.6.0.1']);
  scene.resolver.handleQuery(tcp('lan'), question('crm.corp.example', 'A'), scene.now);
  scene.run(1_000);
  const [first] = decode(scene.responses[0]?.bytes ?? new Uint8Array(0)).answers ?? [];
  t.match(first, { data: /^100\./ });
});

await t.test(`10,000 mutated answers: one event each, targets only (SEED=${SEED})`, async (t) => {
  const random = new SeededRandom(SEED);
  const lookup = new SiteLookup();
  const answers = [
    record(NAME, 'CNAME', 'lb.example'),
    record('lb.example', 'A', '10.7.0.1'),
    record('lb.example', 'AAAA', 'fd00::7'),
    record('lb.example', 'A', '127.0.0.1'),
    record(NAME, 'A', '10.7.0.2'),
  ];
  const counts = { addresses: 0, none: 0, failed: 0 };
  for (let i = 0; i < 10_000; i++) {
    lookup.lookUp(nameOf(NAME), NOW);
    for (const { client, bytes } of drain(lookup).questions) {
      const said = reply(bytes, { answers, authorities: [soa('example', 60, 60)] });
      lookup.handleAnswer(client, mutated(said, random), NOW);
    }
    const { events } = drain(lookup);
    if (events.length !== 1) t.fail(`${events.length} events in round ${i}`);
    const outcome = events[0]?.outcome;
    const values = outcome?.ok === true ? outcome.value : undefined;
    counts[values === undefined ? 'failed' : values.length > 0 ? 'addresses' : 'none']++;
    for (const value of values ?? []) {
      if (/^(0|127|22[4-9]|2[345]\d|169\.254)\.|^(::|ff|fe[89ab])/.test(value)) t.fail(value);
    }
  }
  t.comment(JSON.stringify(counts));
  t.ok(counts.addresses > 0 && counts.none > 0 && counts.failed > 0);
});

await t.test('an answer of 64 KB that is all pointers is read in no time', async (t) => {
  // Each record has the owner of the one before it, at the end of a long chain of pointers.
  const bytes = new Uint8Array(65_535);
  const lookup = new SiteLookup();
  lookup.lookUp(nameOf(NAME), NOW);
  const { questions } = drain(lookup);
  const start = performance.now();
  for (const one of questions) {
    bytes.fill(0);
    bytes.set(reply(one.bytes));
    let at = one.bytes.length;
    // A TXT record that holds the chain.
    bytes.set([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 1, 0x3f, 0], at);
    at += 12;
    let last = 12;
    for (const end = at + 0x3f00; at < end; at += 2) {
      bytes.set([0xc0 | (last >> 8), last & 255], at);
      if (at < 0x4000) last = at;
    }
    let count = 1;
    for (; at + 16 <= bytes.length; at += 16, count++) {
      bytes.set([0xc0 | (last >> 8), last & 255, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 1], at);
    }
    bytes.set([count >> 8, count & 255], 6);
    lookup.handleAnswer(one.client, bytes.subarray(0, at), NOW);
  }
  const took = performance.now() - start;
  t.comment(`${took.toFixed(1)} ms`);
  t.match(drain(lookup).events, [{ outcome: { value: ['10.0.0.1'] } }]);
  t.ok(took < 1_000);
});

/** A server with one name: what it says to each type; nothing of a type is NODATA. */
function zone(types: Readonly<Partial<Record<string, AnswerOptions>>>): SiteServer {
  return (query) => reply(query, types[decode(query).questions?.[0]?.type ?? ''] ?? {});
}

/** Every name has one address. */
function echo(query: Uint8Array): Uint8Array {
  const [asked] = decode(query).questions ?? [];
  const answers = asked?.type === 'A' ? [record(asked.name, 'A', '10.5.0.1')] : [];
  return reply(query, { answers });
}

function drain(lookup: SiteLookup) {
  const questions: SiteQuestion[] = [];
  const events: SiteLookupEvent[] = [];
  for (let one; (one = lookup.pollQuestion()) !== undefined;) questions.push(one);
  for (let event; (event = lookup.pollEvent()) !== undefined;) events.push(event);
  return { questions, events };
}

function mutated(said: Uint8Array, random: SeededRandom): Uint8Array {
  const kind = random.next() % 10;
  if (kind === 0) {
    const bytes = new Uint8Array(random.next() % 200);
    random.fill(bytes);
    return bytes;
  }
  const bytes = said.slice(0, kind === 1 ? random.next() % said.length : undefined);
  for (let n = random.next() % 6; n > 0 && bytes.length > 0; n--) {
    bytes[random.next() % bytes.length] = random.next() & 0xff;
  }
  return bytes;
}
