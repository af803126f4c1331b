import t from 'tap';
import { TwoSites } from '../../sim/two-sites.ts';

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

await t.test('a destination that is nobody’s is refused with ICMP host unreachable', async (t) => {
  const sites = new TwoSites(SEED);
  sites.a.configure({ interface: { addresses: ['10.0.0.1/24'] }, peers: [] });
  sites.send('a', 1);
  const [answer] = sites.a.tun.received;
  t.equal(answer?.[10 + 9], 1, 'protocol ICMP');
  t.same([answer?.[10 + 20], answer?.[10 + 21]], [3, 1], 'destination unreachable, host');
});
