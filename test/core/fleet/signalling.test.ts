import t from 'tap';
import type { Name } from '../../../core/config/name.ts';
import { openSignal, sealSignal, type Signal } from '../../../core/fleet/signal.ts';
import { Signalling, type SignalEvent, type SignalKeys } from '../../../core/fleet/signalling.ts';
import { formatTopic } from '../../../core/fleet/topics.ts';
import type { Candidate } from '../../../core/ice/candidate.ts';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import type { Publication } from '../../../core/plugin/control-channel.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { encodeUtf8 } from '../../../core/sansio/utf8.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { crypto, devicePublicKey, fleet, nameOf } from './fleet-scene.ts';

const R1 = nameOf('r1');
const R2 = nameOf('r2');
const TOPIC_TO_R2 = 'culvert/1/acme/r2/signal/r1';

/** One agent and its time. Events are collected after each input, as the driver does. */
class Station {
  readonly name: Name;
  readonly agent: Signalling;
  readonly events: SignalEvent[] = [];
  now: Instant = instantAt(0);

  constructor(
    name: Name,
    peers: readonly Name[] = [],
    change: { readonly bootId?: number; readonly random?: SeededRandom } = {},
  ) {
    this.name = name;
    const random = new SeededRandom(1);
    const deviceKey = devicePublicKey;
    const options = { fleet, device: name, bootId: 1, deviceKey, random, crypto, ...change };
    this.agent = new Signalling(options);
    for (const peer of peers) this.agent.setPeer(peer, keysOf(name, peer));
  }

  connect(): void {
    const event = { type: 'connected', broker: 'mqtt://broker', protocol: '5' } as const;
    this.agent.handleControl(event, this.now);
  }

  disconnect(): void {
    this.agent.handleControl({ type: 'disconnected', why: 'test' }, this.now);
  }

  /** Tells the peer a list of as many candidates. */
  send(peer: Name, list: number): void {
    this.agent.send(peer, candidates(list), this.now);
  }

  receive({ topic, payload }: Pick<Publication, 'topic' | 'payload'>): void {
    this.agent.handleControl({ type: 'message', topic, payload }, this.now);
    for (let event = this.agent.pollEvent(); event; event = this.agent.pollEvent()) {
      this.events.push(event);
    }
  }

  advance(ms: number): void {
    this.now = instantAt(this.now + ms);
    this.agent.handleTimeout(this.now);
  }

  drain(): readonly Publication[] {
    const drained: Publication[] = [];
    for (let next = this.agent.pollTransmit(); next; next = this.agent.pollTransmit()) {
      drained.push(next);
    }
    return drained;
  }

  /** To whom, and how many candidates. */
  drainLists(): readonly (readonly [Name, number])[] {
    return this.drain().map(({ topic, payload }) => {
      const peer = nameOf(topic.split('/')[3]!);
      const opened = openSignal(payload, topic, keyOf(this.name, peer), crypto);
      if (!opened.ok) throw new Error(opened.why);
      return [peer, opened.value.candidates.length] as const;
    });
  }
}

await t.test('a device subscribes to the signals for it, of whomever', (t) => {
  t.same(new Station(R1).agent.subscriptions, ['culvert/1/acme/r1/signal/+']);
  t.end();
});

await t.test('a list of candidates goes out at once, sealed, and is not retained', (t) => {
  const r1 = connected(R1, [R2]);
  r1.send(R2, 1);
  const [publication, ...more] = r1.drain();
  t.same(more, []);
  t.match(publication, { topic: TOPIC_TO_R2, retain: false, qos: 1, expiry: 60 });
  const opened = openSignal(publication!.payload, TOPIC_TO_R2, keyOf(R1, R2), crypto);
  t.same(opened.ok && opened.value, {
    from: R1,
    to: R2,
    boot: 1,
    seq: 1,
    candidates: candidates(1),
    deviceKey: devicePublicKey,
  });
  t.end();
});

await t.test('a peer hears the candidates and the key of the device', (t) => {
  const [r1, r2] = [connected(R1, [R2]), connected(R2, [R1])];
  r1.send(R2, 4);
  deliver(r1, r2);
  t.same(r2.events, [
    {
      type: 'signal',
      peer: R1,
      candidates: candidates(4),
      deviceKey: devicePublicKey,
      isRestart: false,
    },
  ]);
  t.end();
});

await t.test('an empty list is told too: the device has no way to be reached', (t) => {
  const [r1, r2] = [connected(R1, [R2]), connected(R2, [R1])];
  r1.send(R2, 0);
  deliver(r1, r2);
  t.match(r2.events, [{ type: 'signal', candidates: [] }]);
  t.end();
});

await t.test(
  'while the broker is away only the newest is held, and goes out on connecting',
  (t) => {
    const r1 = new Station(R1, [R2]);
    r1.send(R2, 1);
    r1.send(R2, 2);
    t.same(r1.drain(), []);
    t.equal(r1.agent.pollTimeout(), undefined);
    r1.connect();
    t.same(r1.drainLists(), [[R2, 2]]);
    r1.disconnect();
    r1.send(R2, 3);
    r1.advance(5_000);
    t.same(r1.drain(), []);
    r1.connect();
    t.same(r1.drainLists(), [[R2, 3]]);
    t.end();
  },
);

await t.test('each connection to the broker tells every peer again, with higher numbers', (t) => {
  const [r1, r2] = [connected(R1, [R2]), connected(R2, [R1])];
  r1.send(R2, 1);
  deliver(r1, r2);
  for (let round = 0; round < 3; round++) {
    r1.disconnect();
    r1.advance(1_000);
    r1.connect();
    deliver(r1, r2);
  }
  t.equal(r2.events.length, 4);
  t.ok(r2.events.every((event) => event.type === 'signal' && !event.isRestart));
  t.end();
});

await t.test('what went out once is told again though no connection ended in between', (t) => {
  const r1 = connected(R1, [R2]);
  r1.send(R2, 1);
  r1.drain();
  r1.connect();
  r1.advance(200);
  t.same(r1.drainLists(), [[R2, 1]]);
  t.end();
});

await t.test('a peer gets at most one signal in 200 ms, and then the newest', (t) => {
  const r1 = connected(R1, [R2]);
  r1.send(R2, 1);
  t.same(r1.drainLists(), [[R2, 1]]);
  r1.advance(50);
  r1.send(R2, 2);
  r1.send(R2, 3);
  t.same(r1.drain(), []);
  t.match(r1.agent.pollTimeout(), { at: 200, reason: 'signal due' });
  r1.advance(149);
  t.same(r1.drain(), []);
  r1.advance(1);
  t.same(r1.drainLists(), [[R2, 3]]);
  t.equal(r1.agent.pollTimeout(), undefined);
  r1.advance(200);
  r1.send(R2, 4);
  t.same(r1.drainLists(), [[R2, 4]], 'after a pause the next goes at once');
  t.end();
});

await t.test('the rate of one peer does not hold up another', (t) => {
  const r3 = nameOf('r3');
  const r1 = connected(R1, [R2, r3]);
  r1.send(R2, 1);
  r1.drain();
  r1.send(R2, 2);
  r1.send(r3, 7);
  t.same(r1.drainLists(), [[r3, 7]]);
  t.end();
});

await t.test('a broker that comes and goes does not raise the rate', (t) => {
  const r1 = connected(R1, [R2]);
  r1.send(R2, 1);
  let sent = 0;
  for (let ms = 0; ms < 1_000; ms += 10) {
    sent += r1.drain().length;
    r1.disconnect();
    r1.connect();
    r1.advance(10);
  }
  t.equal(sent, 5);
  t.end();
});

await t.test('ten peers are told at once after connecting, more of them within 2 s', (t) => {
  const few = new Station(R1, names(10));
  for (const peer of names(10)) few.send(peer, 1);
  few.connect();
  t.equal(few.drain().length, 10);

  const many = new Station(R1, names(200));
  for (const peer of names(200)) many.send(peer, 1);
  many.connect();
  const sentAt: number[] = [];
  const told = new Set<Name>();
  for (let ms = 0; ms <= 2_000; ms += 100) {
    for (const [peer] of many.drainLists()) {
      sentAt.push(ms);
      told.add(peer);
    }
    many.advance(100);
  }
  t.equal(sentAt.length, 200);
  t.equal(told.size, 200);
  const half = sentAt.filter((ms) => ms <= 1_000).length;
  t.ok(half > 60 && half < 140, `${half} of 200 in the first second`);
  t.equal(many.agent.pollTimeout(), undefined);
  t.end();
});

await t.test('news for a peer do not wait for their turn after a reconnect', (t) => {
  const r1 = new Station(R1, names(50));
  const [peer] = names(1);
  for (const name of names(50)) r1.send(name, 1);
  r1.connect();
  r1.drain();
  r1.send(peer!, 2);
  t.same(r1.drainLists(), [[peer, 2]]);
  let again = 0;
  for (let ms = 0; ms <= 2_000; ms += 50) {
    again += r1.drainLists().filter(([name]) => name === peer).length;
    r1.advance(50);
  }
  t.equal(again, 0, 'and are told once');
  t.end();
});

await t.test('a peer of which nothing is to be told gets nothing', (t) => {
  const r1 = new Station(R1, [R2]);
  r1.connect();
  r1.advance(10_000);
  t.same(r1.drain(), []);
  r1.send(nameOf('stranger'), 1);
  t.same(r1.drain(), []);
  t.end();
});

await t.test('a signal that is not newer than the last changes nothing and is counted', (t) => {
  const r1 = connected(R1, [R2]);
  const [old, last, next] = [signalTo(r1, 3, 1), signalTo(r1, 3, 2), signalTo(r1, 3, 3)];
  r1.receive(last);
  r1.receive(last);
  r1.receive(old);
  r1.receive(signalTo(r1, 2, 99));
  t.equal(r1.events.length, 1);
  t.match(r1.agent.drops, { replayed: 3 });
  r1.receive(next);
  t.equal(r1.events.length, 2);
  t.end();
});

await t.test('a higher boot number says that the peer has started again', (t) => {
  const r1 = connected(R1, [R2]);
  for (const [boot, seq] of [
    [3, 8],
    [3, 9],
    [4, 1],
    [4, 2],
  ] as const) {
    r1.receive(signalTo(r1, boot, seq));
  }
  const restarts = r1.events.map((event) => event.type === 'signal' && event.isRestart);
  t.same(restarts, [false, false, true, false]);
  t.end();
});

await t.test('after a start of ours the newest wins, whatever was seen before', (t) => {
  const before = connected(R1, [R2]);
  before.receive(signalTo(before, 9, 9));
  const after = connected(R1, [R2], { bootId: 2 });
  after.receive(signalTo(after, 9, 9));
  t.match(after.events, [{ type: 'signal', isRestart: false }]);
  t.end();
});

await t.test('a peer that has started is told our candidates again, once', (t) => {
  const r1 = connected(R1, [R2]);
  r1.send(R2, 5);
  r1.drain();
  r1.advance(60_000);
  r1.receive(signalTo(r1, 3, 1));
  t.same(r1.drain(), []);
  r1.advance(200);
  t.same(r1.drainLists(), [[R2, 5]]);
  r1.receive(signalTo(r1, 3, 2));
  r1.advance(5_000);
  t.same(r1.drain(), [], 'it needs no answer to each signal');
  r1.receive(signalTo(r1, 4, 1));
  r1.send(R2, 6);
  t.same(r1.drainLists(), [[R2, 6]], 'what its owner has to say goes at once');
  r1.advance(5_000);
  t.same(r1.drain(), [], 'and needs no repetition');
  t.end();
});

await t.test('two devices that start together soon fall silent', (t) => {
  const [r1, r2] = [connected(R1, [R2]), connected(R2, [R1])];
  r1.send(R2, 1);
  r2.send(R1, 2);
  let messages = 0;
  for (let ms = 0; ms < 10_000; ms += 100) {
    messages += deliver(r1, r2) + deliver(r2, r1);
    r1.advance(100);
    r2.advance(100);
  }
  t.ok(messages <= 4, `${messages} messages`);
  t.end();
});

await t.test('a signal under another key tells of the mismatch, once in 60 s a peer', (t) => {
  const r3 = nameOf('r3');
  const r1 = connected(R1, [R2, r3]);
  const forged = { ...signalTo(r1, 1, 1), payload: new Uint8Array(300) };
  const told = () => r1.events.splice(0);
  for (let i = 0; i < 50; i++) r1.receive(forged);
  t.same(told(), [{ type: 'key-mismatch', peer: R2 }]);
  r1.advance(59_999);
  r1.receive(forged);
  t.same(told(), []);
  r1.receive({ ...forged, topic: 'culvert/1/acme/r1/signal/r3' });
  t.same(told(), [{ type: 'key-mismatch', peer: r3 }]);
  r1.advance(1);
  r1.receive(forged);
  t.same(told(), [{ type: 'key-mismatch', peer: R2 }]);
  t.match(r1.agent.drops, { 'not-authentic': 53 });
  t.end();
});

await t.test('nothing that does not open keeps a later signal out', (t) => {
  const r1 = connected(R1, [R2]);
  r1.receive({ ...signalTo(r1, 99, 99), payload: new Uint8Array(300) });
  r1.receive(signalTo(r1, 1, 1));
  t.match(r1.events, [{ type: 'key-mismatch' }, { type: 'signal' }]);
  t.end();
});

await t.test('a signal cannot be sent back, or moved to another device or peer', (t) => {
  const r3 = nameOf('r3');
  const [r1, r2] = [connected(R1, [R2, r3]), connected(R2, [R1])];
  r1.send(R2, 1);
  const [publication] = r1.drain();
  r1.receive({ ...publication!, topic: 'culvert/1/acme/r1/signal/r2' });
  r1.receive({ ...publication!, topic: 'culvert/1/acme/r1/signal/r3' });
  r2.receive({ ...publication!, topic: 'culvert/1/acme/r2/signal/r3' });
  t.match(r1.agent.drops, { 'not-authentic': 2 });
  t.match(r2.agent.drops, { 'unknown-peer': 1 });
  t.end();
});

await t.test('an authentic signal that names others than its topic does is dropped', (t) => {
  const r1 = connected(R1, [R2]);
  const r3 = nameOf('r3');
  r1.receive(signalTo(r1, 1, 1, { from: r3 }));
  r1.receive(signalTo(r1, 1, 2, { to: r3 }));
  t.match(r1.agent.drops, { misaddressed: 2 });
  t.same(r1.events, []);
  t.end();
});

await t.test('strangers, garbage and other topics make no event', (t) => {
  const r1 = connected(R1, [R2]);
  const topics = [
    'culvert/1/acme/r1/signal/stranger',
    'culvert/1/acme/r3/signal/r2',
    'culvert/1/other/r1/signal/r2',
    'culvert/1/acme/r1/desired',
    'culvert/1/acme/r1/signal/r2/x',
    '',
  ];
  for (const topic of topics) r1.receive({ topic, payload: new Uint8Array(100) });
  r1.receive({ topic: 'culvert/1/acme/r1/signal/r2', payload: new Uint8Array(0) });
  r1.receive({ topic: 'culvert/1/acme/r1/signal/r2', payload: new Uint8Array(20_000) });
  r1.receive(sealedText(r1, '{}'));
  t.same(r1.events, []);
  t.same(r1.agent.drops, {
    'unknown-peer': 1,
    malformed: 3,
    'not-authentic': 0,
    misaddressed: 0,
    replayed: 0,
  });
  t.end();
});

await t.test('a peer that is removed is neither told nor heard', (t) => {
  const r1 = connected(R1, [R2]);
  r1.send(R2, 1);
  r1.drain();
  r1.send(R2, 2);
  r1.agent.removePeer(R2);
  r1.advance(1_000);
  t.same(r1.drain(), []);
  r1.receive(signalTo(r1, 1, 1));
  t.same(r1.events, []);
  t.match(r1.agent.drops, { 'unknown-peer': 1 });
  t.end();
});

await t.test('a peer that is removed and added again still takes our signals as newer', (t) => {
  const [r1, r2] = [connected(R1, [R2]), connected(R2, [R1])];
  for (let round = 1; round <= 3; round++) {
    r1.send(R2, round);
    deliver(r1, r2);
    r1.agent.removePeer(R2);
    r1.agent.setPeer(R2, keysOf(R1, R2));
  }
  t.equal(r2.events.length, 3);
  t.end();
});

await t.test('setting the keys of a peer again keeps it, other keys make it another peer', (t) => {
  const r1 = connected(R1, [R2]);
  r1.send(R2, 1);
  r1.drain();
  r1.receive(signalTo(r1, 5, 5));
  r1.agent.setPeer(R2, keysOf(R1, R2));
  r1.receive(signalTo(r1, 5, 5));
  t.match(r1.agent.drops, { replayed: 1 });

  r1.agent.setPeer(R2, { sendKey: new Uint8Array(32).fill(1), receiveKey: keyOf(R2, R1) });
  r1.connect();
  r1.advance(1_000);
  t.same(r1.drain(), [], 'what was meant for the other is not told to it');
  r1.receive(signalTo(r1, 1, 1));
  t.match(r1.events.at(-1), { type: 'signal', isRestart: false });
  t.end();
});

await t.test('driven at its deadlines alone it does what it does when driven each 10 ms', (t) => {
  const seed = Math.trunc(Math.random() * 2 ** 31);
  const traces = [10, Infinity].map((step) => {
    const random = new SeededRandom(seed);
    const station = new Station(R1, names(20), { random: new SeededRandom(seed) });
    const trace: string[] = [];
    const note = () => {
      for (const [peer, list] of station.drainLists()) trace.push(`${station.now} ${peer} ${list}`);
    };
    for (let round = 0; round < 60; round++) {
      const choice = random.next() % 8;
      if (choice === 0) station.disconnect();
      else if (choice < 3) station.connect();
      else station.send(names(20)[random.next() % 20]!, round);
      note();
      const end = station.now + (random.next() % 40) * 10;
      while (station.now < end) {
        const due = station.agent.pollTimeout()?.at ?? Infinity;
        if (due <= station.now) t.fail(`seed ${seed}: due at ${due}, drained at ${station.now}`);
        station.advance(Math.min(end, due, station.now + step) - station.now);
        note();
      }
    }
    return trace;
  });
  t.same(traces[0], traces[1], `seed ${seed}`);
  t.ok(traces[0]!.length > 20, `seed ${seed}: ${traces[0]!.length} signals`);
  t.end();
});

function connected(name: Name, peers: readonly Name[], change: { bootId?: number } = {}): Station {
  const station = new Station(name, peers, change);
  station.connect();
  return station;
}

/** Brings what one has to say to the other, and returns how much it was. */
function deliver(from: Station, to: Station): number {
  const publications = from.drain();
  for (const publication of publications) to.receive(publication);
  return publications.length;
}

/** A signal of r2 to a station. */
function signalTo(
  { name }: Station,
  boot: number,
  seq: number,
  change: Partial<Signal> = {},
): Pick<Publication, 'topic' | 'payload'> {
  const topic = formatTopic({ fleet, device: name, kind: 'signal', from: R2 });
  const deviceKey = devicePublicKey;
  const signal = { from: R2, to: name, boot, seq, candidates: candidates(1), deviceKey, ...change };
  const random = new SeededRandom(boot * 100 + seq);
  return { topic, payload: sealSignal(signal, topic, keyOf(R2, name), { crypto, random }) };
}

function sealedText({ name }: Station, text: string): Pick<Publication, 'topic' | 'payload'> {
  const topic = formatTopic({ fleet, device: name, kind: 'signal', from: R2 });
  const nonce = new Uint8Array(24);
  const { xchacha20poly1305 } = crypto;
  const body = xchacha20poly1305.seal(keyOf(R2, name), nonce, encodeUtf8(text), encodeUtf8(topic));
  return { topic, payload: Uint8Array.of(...nonce, ...body) };
}

function keysOf(own: Name, peer: Name): SignalKeys {
  return { sendKey: keyOf(own, peer), receiveKey: keyOf(peer, own) };
}

/** Stands for what the pair derives: a key of its own for each direction. */
function keyOf(from: Name, to: Name): Uint8Array {
  return crypto.sha256(encodeUtf8(`${from} to ${to}`));
}

function candidates(count: number): readonly Candidate[] {
  return Array.from({ length: count }, (_, i) => ({
    type: 'host',
    transport: 'udp',
    foundation: `${i}`,
    priority: 100 - i,
    address: `192.0.2.1:${1000 + i}` as SocketAddress,
  }));
}

function names(count: number): readonly Name[] {
  return Array.from({ length: count }, (_, i) => nameOf(`peer${i}`));
}
