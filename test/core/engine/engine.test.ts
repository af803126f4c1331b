import t from 'tap';
import type { Engine } from '../../../core/engine/engine.ts';
import type { Instant } from '../../../core/sansio/instant.ts';
import { failed, ok } from '../../../core/sansio/outcome.ts';
import { address, configuration, createEngine } from '../../sim/site.ts';
import { TwoSites } from '../../sim/two-sites.ts';
import { VirtualTime } from '../../sim/virtual-time.ts';
import { plainRead, udp } from '../fastpath/packets.ts';

const SECOND = 1000;
const HOUR = 3600 * SECOND;
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

await t.test('the first packet makes the session and arrives', async (t) => {
  const sites = new TwoSites(SEED);
  sites.send('a', 1);
  t.same(sites.received('b'), [1]);
  t.match(sites.a.engine.status().peers, [{ id: 'b', state: 'connected' }]);
  t.match(sites.a.events.at(-1), { type: 'peer-connected', peer: 'b' });
});

await t.test('packets that come before the session is there keep their order', async (t) => {
  const sites = new TwoSites(SEED);
  sites.loss = 1;
  for (let number = 1; number <= 10; number++) sites.send('a', number);
  sites.loss = 0;
  sites.advance(6 * SECOND);
  t.same(sites.received('b'), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
});

await t.test('in an hour of traffic both ways no rekey loses a packet', async (t) => {
  const sites = new TwoSites(SEED);
  const numbers = Array.from({ length: HOUR / SECOND }, (_, i) => i);
  for (const number of numbers) {
    sites.send('a', number);
    sites.send('b', number);
    sites.advance(SECOND);
  }
  t.same(sites.received('b'), numbers);
  t.same(sites.received('a'), numbers);
  const news = sites.a.events.filter(({ type }) => type === 'peer-connected');
  t.equal(news.length, 1, 'a rekey is no news');
});

await t.test('at 20 % loss and 20 % duplication packets are lost but never repeated', async (t) => {
  const sites = new TwoSites(SEED);
  sites.loss = 0.2;
  sites.duplication = 0.2;
  const count = 2000;
  for (let number = 0; number < count; number++) {
    sites.send('a', number);
    sites.advance(SECOND);
  }
  const received = sites.received('b');
  t.ok(received.length > 0.7 * count, `${received.length} of ${count} arrived`);
  t.equal(new Set(received).size, received.length, 'none came twice');
});

await t.test('a silent tunnel costs no datagram', async (t) => {
  const sites = new TwoSites(SEED);
  sites.send('a', 1);
  sites.send('b', 2);
  sites.advance(30 * SECOND);
  const before = sites.sent;
  sites.advance(24 * HOUR);
  t.equal(sites.sent, before);
});

await t.test('a peer that is gone is told once, and found again', async (t) => {
  const sites = new TwoSites(SEED);
  sites.send('a', 1);
  sites.loss = 1;
  sites.advance(200 * SECOND);
  sites.send('a', 2);
  sites.advance(100 * SECOND);
  t.match(sites.a.events.at(-1), { type: 'peer-failed', peer: 'b', cause: 'no-response' });
  sites.loss = 0;
  sites.advance(10 * SECOND);
  sites.send('a', 3);
  sites.advance(10 * SECOND);
  t.match(sites.a.events.at(-1), { type: 'peer-connected', peer: 'b' });
  t.equal(sites.received('b').at(-1), 3);
});

await t.test('a peer that is removed is not heard any more, and comes back', async (t) => {
  const sites = new TwoSites(SEED);
  sites.send('a', 1);
  const document = { interface: { addresses: ['10.0.0.2/24'] }, peers: [] };
  sites.b.configure(document);
  sites.send('a', 2);
  t.same(sites.received('b'), [1]);
  t.same(sites.b.engine.status().peers, []);
  const peer = { id: 'a', publicKey: sites.a.publicKey, allowedIps: ['10.0.0.1/32'] };
  sites.b.configure({ ...document, peers: [peer] });
  sites.advance(200 * SECOND);
  sites.send('a', 3);
  sites.advance(10 * SECOND);
  t.equal(sites.received('b').at(-1), 3);
});

await t.test('a source that is not the peer’s is dropped and counted', async (t) => {
  const sites = new TwoSites(SEED);
  const peer = { id: 'a', publicKey: sites.a.publicKey, allowedIps: ['10.0.0.9/32'] };
  sites.b.configure({ interface: { addresses: ['10.0.0.2/24'] }, peers: [peer] });
  sites.send('a', 1);
  sites.advance(SECOND);
  t.same(sites.received('b'), []);
  t.equal(sites.b.engine.status().drops['source-not-allowed'], 1);
});

await t.test('multicast that no peer wants is dropped without a word', async (t) => {
  const sites = new TwoSites(SEED);
  sites.a.tun.send(plainRead(udp({ source: '10.0.0.1', destination: '224.0.0.251' })));
  sites.a.tun.send(plainRead(udp({ source: 'fe80::1', destination: 'ff02::2' })));
  sites.a.tun.report();
  t.equal(sites.a.engine.status().drops['multicast'], 2);
  t.same(sites.a.tun.received, []);
});

await t.test('a destination that is nobody’s is refused with ICMP host unreachable', async (t) => {
  const sites = new TwoSites(SEED);
  sites.a.configure({ interface: { addresses: ['10.0.0.1/24'] }, peers: [] });
  sites.send('a', 1);
  const [answer] = sites.a.tun.received;
  t.equal(answer?.[10 + 9], 1, 'protocol ICMP');
  t.same([answer?.[10 + 20], answer?.[10 + 21]], [3, 1], 'destination unreachable, host');
});

await t.test('a peer of which nobody knows where it is is refused the same way', async (t) => {
  const sites = new TwoSites(SEED);
  const interfaceOfA = { addresses: ['10.0.0.1/24'] };
  const peer = { id: 'b', publicKey: sites.b.publicKey, allowedIps: ['10.0.0.2/32'] };
  sites.a.configure({ interface: interfaceOfA, peers: [] });
  sites.a.configure({ interface: interfaceOfA, peers: [peer] });
  sites.send('a', 1);
  const [answer] = sites.a.tun.received;
  t.same([answer?.[10 + 20], answer?.[10 + 21]], [3, 1], 'destination unreachable, host');
  t.equal(sites.a.engine.status().drops['no-endpoint'], 1);
  sites.send('b', 1);
  sites.advance(6 * SECOND);
  sites.send('a', 2);
  sites.advance(SECOND);
  t.same(sites.received('b'), [2], 'until it calls');
});

await t.test('packets wait while the name of a peer is resolved, but no longer', async (t) => {
  const time = new VirtualTime(0);
  const clock = time.clock();
  const engine = createEngine(SEED, clock);
  const publicKey = Buffer.alloc(32, 9).toString('base64');
  const peer = { id: 'b', publicKey, endpoint: 'b.example:51820', allowedIps: ['10.0.0.2/32'] };
  const document = { interface: { addresses: ['10.0.0.1/24'] }, peers: [peer] };
  engine.handleInput(
    { type: 'configuration', configuration: configuration(document) },
    clock.now(),
  );
  answerCommands(engine, clock.now());
  const packet = plainRead(udp({ destination: '10.0.0.2' }));
  const read = (): number => {
    const view = new DataView(engine.arena.buffer);
    const { table, into } = engine.arena.reads;
    new Uint8Array(engine.arena.buffer).set(packet, into);
    view.setUint32(table, into, true);
    view.setUint32(table + 4, packet.length, true);
    engine.handlePackets(1, clock.now());
    return engine.takeWrites();
  };
  t.equal(read(), 0, 'it waits');
  const answer = { type: 'resolved', peer: 'b', host: 'b.example' } as const;
  engine.handleInput({ ...answer, outcome: failed('not-resolved') }, clock.now());
  t.same(engine.status().drops, { undelivered: 1 });
  t.equal(read(), 1, 'refused');
  time.advance(10 * SECOND, () => engine.handleTimeout(clock.now()));
  answerCommands(engine, clock.now());
  engine.handleInput({ ...answer, outcome: ok([address('192.0.2.2')]) }, clock.now());
  t.equal(read(), 0);
  t.ok(engine.pollTransmit(), 'calls it');
  t.same(engine.status().drops, { undelivered: 1, 'no-endpoint': 1 });
});

/** Has everything that the engine wants done succeed. */
function answerCommands(engine: Engine, now: Instant): void {
  for (let command = engine.pollCommand(); command; command = engine.pollCommand()) {
    const { type } = command;
    if (type === 'open-device') {
      const outcome = ok({ name: command.name, offloads: { tcp: true, udp: true } });
      engine.handleInput({ type: 'device-opened', outcome }, now);
    } else if (type === 'listen') {
      const outcome = ok({ port: 51820, ipv4: 3, ipv6: 4 });
      engine.handleInput({ type: 'listening', outcome }, now);
    } else if (type === 'apply-link') {
      engine.handleInput({ type: 'link-applied', changes: 0, failures: [] }, now);
    }
  }
}
