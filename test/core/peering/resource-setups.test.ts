import t from 'tap';
import { parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';
import { buildUdpPacket } from '../../../core/packet/udp.ts';
import { decodePeering, encodePeering, type DomainStatus } from '../../../core/peering/message.ts';
import { PEERING_MESSAGES_PER_SECOND } from '../../../core/peering/peering.ts';
import {
  MOST_HELD,
  MOST_HELD_IN_ALL,
  MOST_SETUPS,
  RESEND_INTERVAL,
  ResourceSetups,
  SETUP_MESSAGES_PER_SECOND,
  SETUP_PATIENCE,
  type SetupKey,
} from '../../../core/peering/resource-setups.ts';
import { parseSocketAddress, type SocketAddress } from '../../../core/net/socket-address.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';

const PROXIES: readonly IpAddress[] = [ip('100.96.0.4'), ip('fd00:1::4')];
const CRM: SetupKey = { peer: 3, resource: 'crm', domain: 'crm.corp.example' };

/** A client and what comes out of it, each with its time: one second in, as a daemon has been started. */
class Client {
  readonly setups = new ResourceSetups();
  now: Instant = instantAt(1000);
  #seen: string[] = [];

  request(key = CRM): this {
    this.setups.request(key, PROXIES, this.now);
    return this.#drain();
  }

  hold(packet: Uint8Array | number, key = CRM): this {
    const bytes = typeof packet === 'number' ? Uint8Array.of(packet) : packet;
    this.setups.hold(key, PROXIES, bytes, this.now);
    return this.#drain();
  }

  status(status: DomainStatus, key = CRM): this {
    this.setups.handleStatus(key, status, this.now);
    return this.#drain();
  }

  unreachable(key = CRM): boolean {
    const isAsked = this.setups.handleUnreachable(key, PROXIES, this.now);
    this.#drain();
    return isAsked;
  }

  peerLost(peer = CRM.peer): this {
    this.setups.handlePeerLost(peer, this.now);
    return this.#drain();
  }

  /** Lets time pass, obeying deadlines exactly. */
  wait(ms: number): this {
    const end = this.now + ms;
    for (let due = this.setups.pollTimeout(); due && due.at <= end;) {
      if (due.at <= this.now) throw new Error(`awake at ${this.now} for nothing`);
      this.now = due.at;
      this.setups.handleTimeout(this.now);
      this.#drain();
      due = this.setups.pollTimeout();
    }
    this.now = instantAt(end);
    return this;
  }

  /** Lets time pass without a look at deadlines. */
  wakeAfter(ms: number): this {
    this.now = instantAt(this.now + ms);
    this.setups.handleTimeout(this.now);
    return this.#drain();
  }

  /** What was seen since it was asked last. */
  seen(): readonly string[] {
    const seen = this.#seen;
    this.#seen = [];
    return seen;
  }

  state(key = CRM): string | undefined {
    const status = this.setups
      .statuses()
      .find(({ peer, domain }) => peer === key.peer && domain === key.domain);
    return status && (status.why === undefined ? status.state : `${status.state} ${status.why}`);
  }

  #drain(): this {
    for (let event = this.setups.pollEvent(); event; event = this.setups.pollEvent()) {
      const at = this.now - 1000;
      if (event.type === 'send' && event.message.type === 'assigned-ips') {
        this.#seen.push(`${at} send ${event.message.domain}`);
      } else if (event.type === 'released') {
        const packets = event.packets.map((packet) => ` ${packet[0]}`).join('');
        this.#seen.push(`${at} released${packets}`);
      } else if (event.type === 'failed') {
        this.#seen.push(`${at} failed ${event.why}`);
      }
    }
    return this;
  }
}

await t.test('the gateway is told resource, domain and proxies', async (t) => {
  const setups = new ResourceSetups();
  setups.request(CRM, PROXIES, instantAt(0));
  const event = setups.pollEvent();
  t.strictSame(event, {
    type: 'send',
    peer: 3,
    message: {
      type: 'assigned-ips',
      resource: 'crm',
      domain: 'crm.corp.example',
      proxyIps: PROXIES,
    },
  });
  if (event?.type !== 'send') return;
  t.strictSame(decodePeering(encodePeering(event.message)), { ok: true, value: event.message });
});

await t.test('a set-up that is not known holds, and its first packet begins it', async (t) => {
  const client = new Client();
  t.ok(client.setups.isHeld(CRM));
  t.equal(client.state(), undefined);
  client.hold(1);
  t.strictSame(client.seen(), ['0 send crm.corp.example']);
  t.equal(client.state(), 'pending');
  t.ok(client.setups.isHeld(CRM));
});

await t.test('held packets are released in order when the gateway has answered', async (t) => {
  const client = new Client().request().hold(1).hold(2).hold(3);
  t.strictSame(client.seen(), ['0 send crm.corp.example']);
  client.wait(40).status('active');
  t.strictSame(client.seen(), ['40 released 1 2 3']);
  t.equal(client.state(), 'confirmed');
  t.notOk(client.setups.isHeld(CRM));
  t.equal(client.setups.pollTimeout(), undefined, 'and nothing is waited for');
});

await t.test(
  'a message is repeated every 2 s until patience ends, then failure is told',
  async (t) => {
    const client = new Client().hold(1).wait(60_000);
    t.strictSame(client.seen(), [
      '0 send crm.corp.example',
      '2000 send crm.corp.example',
      '4000 send crm.corp.example',
      '6000 send crm.corp.example',
      '8000 send crm.corp.example',
      `${SETUP_PATIENCE} failed no-answer`,
    ]);
    t.equal(client.state(), 'failed no-answer');
    t.match(client.setups.drops, { 'setup-no-answer': 1 });
    t.ok(client.setups.isHeld(CRM), 'whose packets do not pass');
  },
);

await t.test('a packet after that begins anew, and a second failure is not told', async (t) => {
  const client = new Client().hold(1).wait(20_000);
  client.seen();
  client.hold(2).wait(20_000);
  t.strictSame(client.seen(), [
    '20000 send crm.corp.example',
    '22000 send crm.corp.example',
    '24000 send crm.corp.example',
    '26000 send crm.corp.example',
    '28000 send crm.corp.example',
  ]);
  t.equal(client.state(), 'failed no-answer');
  client.hold(3).status('active');
  t.strictSame(client.seen(), ['40000 send crm.corp.example', '40000 released 3']);
  client.wait(5000).request().wait(SETUP_PATIENCE);
  t.match(client.seen().at(-1), /55000 failed no-answer/, 'it is after a confirmation');
});

await t.test('packets and queries do not clear a set-up that is pending', async (t) => {
  const client = new Client().hold(1);
  for (let i = 2; i < 12; i++) client.wait(500).request().hold(i);
  t.strictSame(client.seen(), [
    '0 send crm.corp.example',
    '2000 send crm.corp.example',
    '4000 send crm.corp.example',
  ]);
  client.status('active');
  t.strictSame(client.seen(), ['5000 released 1 2 3 4 5 6 7 8 9 10 11']);
});

await t.test('every query makes a confirmed name be resolved again, without holding', async (t) => {
  const client = new Client().request().status('active').wait(3000);
  client.seen();
  client.request();
  t.strictSame(client.seen(), ['3000 send crm.corp.example']);
  t.equal(client.state(), 'recreating');
  t.notOk(client.setups.isHeld(CRM));
  client.status('active');
  t.equal(client.state(), 'confirmed');
  t.strictSame(client.seen(), [], 'nothing was held');
});

await t.test('queries that come together are one message', async (t) => {
  const client = new Client().request().request().wait(30).status('active').wait(10_000);
  t.strictSame(client.seen(), ['0 send crm.corp.example', '30 released']);
});

await t.test('a query that comes too early is sent when the interval is over', async (t) => {
  const client = new Client().request().wait(30).status('active').wait(70).request();
  t.strictSame(client.setups.pollTimeout()?.at, 1000 + RESEND_INTERVAL);
  client.request().wait(5000);
  t.strictSame(client.seen(), [
    '0 send crm.corp.example',
    '30 released',
    '2000 send crm.corp.example',
    '4000 send crm.corp.example',
  ]);
  const late = new Client().request().status('active').request().status('active');
  late.wait(RESEND_INTERVAL);
  t.match(late.seen().at(-1), /2000 send/, 'a late answer is none to what was not sent yet');
});

await t.test('names that are resolved again without an answer fail for people alone', async (t) => {
  const client = new Client().request().status('active').wait(5000).request().wait(20_000);
  t.strictSame(client.seen().slice(2), [
    '5000 send crm.corp.example',
    '7000 send crm.corp.example',
    '9000 send crm.corp.example',
    '11000 send crm.corp.example',
    '13000 send crm.corp.example',
    '15000 failed no-answer',
  ]);
  t.equal(client.state(), 'failed no-answer');
  t.notOk(client.setups.isHeld(CRM));
  client.hold(1);
  t.strictSame(client.seen(), ['25000 released 1'], 'a packet that was to be held passes');
  client.status('active');
  t.equal(client.state(), 'confirmed', 'an answer that comes late is one');
});

await t.test('packets of a refused name go to the gateway, which answers them', async (t) => {
  for (const status of ['refused', 'not-resolved'] as const) {
    const client = new Client().hold(1).hold(2).wait(50).status(status);
    t.strictSame(client.seen(), [
      '0 send crm.corp.example',
      '50 released 1 2',
      `50 failed ${status}`,
    ]);
    t.equal(client.state(), `failed ${status}`);
    t.notOk(client.setups.isHeld(CRM));
    t.equal(client.setups.pollTimeout(), undefined);
    client.wait(4950).request();
    t.strictSame(client.seen(), ['5000 send crm.corp.example']);
    t.ok(client.setups.isHeld(CRM), 'until the next query, as the answer may be another');
    client.status(status);
    t.strictSame(client.seen(), ['5000 released'], 'a failure is told once');
  }
});

await t.test('the status of what nobody asked for changes nothing', async (t) => {
  const client = new Client();
  client.status('active');
  t.strictSame(client.setups.statuses(), []);
  client.request();
  client.status('active', { ...CRM, peer: 4 });
  client.status('active', { ...CRM, resource: 'git' });
  client.status('active', { ...CRM, domain: 'git.corp.example' });
  t.equal(client.state(), 'pending');
});

await t.test('a gateway without the map is asked again, and the sender not bothered', async (t) => {
  const client = new Client().request().status('active');
  t.notOk(client.unreachable(), 'not if it has answered just now: then it means it');
  client.wait(RESEND_INTERVAL);
  client.seen();
  t.ok(client.unreachable());
  t.ok(client.unreachable(), 'once for all packets that were on the way');
  t.strictSame(client.seen(), ['2000 send crm.corp.example']);
  t.equal(client.state(), 'recreating');
  t.notOk(client.setups.isHeld(CRM));
});

await t.test('a gateway that has refused is asked again in silence', async (t) => {
  const client = new Client().hold(1).status('refused');
  t.notOk(client.unreachable());
  client.wait(RESEND_INTERVAL);
  client.seen();
  t.notOk(client.unreachable(), 'the sender hears what it says');
  t.strictSame(client.seen(), ['2000 send crm.corp.example']);
  client.hold(2).status('active');
  t.strictSame(client.seen(), ['2000 released 2']);
});

await t.test(
  'what was forgotten here is asked for when the gateway does not know it',
  async (t) => {
    const client = new Client();
    t.ok(client.unreachable());
    t.equal(client.state(), 'pending');
    t.strictSame(client.seen(), ['0 send crm.corp.example']);
  },
);

await t.test('all names of a lost gateway are set up again, while packets pass', async (t) => {
  const others = { ...CRM, peer: 4 };
  const client = new Client().request().status('active').request(others).status('active', others);
  client.wait(60_000).seen();
  client.peerLost();
  t.strictSame(client.seen(), ['60000 send crm.corp.example']);
  t.equal(client.state(), 'recreating');
  t.equal(client.state(others), 'confirmed');
  t.notOk(client.setups.isHeld(CRM));
  client.wait(SETUP_PATIENCE);
  t.equal(client.state(), 'failed no-answer');
  client.seen();
  client.peerLost();
  t.strictSame(client.seen(), ['70000 send crm.corp.example'], 'also those that had failed so');
});

await t.test(
  'a set-up that is pending when its gateway is lost has all its time again',
  async (t) => {
    const client = new Client().hold(1).wait(9000).peerLost().status('active');
    t.equal(client.state(), 'pending', 'the answer was of before');
    client.wait(1000);
    t.match(client.seen().at(-1), /10000 send/);
    client.wait(9999);
    t.equal(client.state(), 'pending');
    client.wait(1);
    t.equal(client.state(), 'failed no-answer');
  },
);

await t.test('what failed before it ever worked waits for somebody to ask', async (t) => {
  const client = new Client().hold(1).status('refused').wait(5000);
  client.seen();
  client.peerLost().wait(5000);
  t.strictSame(client.seen(), []);
});

await t.test('one gateway with many names is asked at a pace that it reads', async (t) => {
  const client = new Client();
  const keys = names(100);
  for (const key of keys) client.request(key).status('active', key);
  client.wait(60_000);
  for (const key of keys) client.status('active', key);
  client.wait(60_000).seen();
  client.peerLost().wait(120_000);
  const sent = client.seen().filter((line) => line.includes('send'));
  t.equal(new Set(sent.map((line) => line.split(' ')[2])).size, 100);
  t.equal(sent.length, 500, 'each has as many messages as if it were alone');
  const times = sent.map((line) => Number(line.split(' ')[0]));
  const most = Math.max(
    ...times.map((from) => times.filter((at) => at >= from && at < from + 1000).length),
  );
  t.ok(most <= 2 * SETUP_MESSAGES_PER_SECOND, `${most} messages in a second`);
  t.ok(most < PEERING_MESSAGES_PER_SECOND);
  const gaps = keys.flatMap(({ domain }) => {
    const own = times.filter((_, i) => sent[i]?.endsWith(` ${domain}`));
    return own.slice(1).map((at, i) => at - (own[i] ?? 0));
  });
  t.ok(Math.min(...gaps) >= RESEND_INTERVAL);
});

await t.test(
  'names with held packets go first, and other gateways are not kept waiting',
  async (t) => {
    const client = new Client();
    const keys = names(30);
    const [urgent] = keys.slice(-1);
    for (const key of keys) client.request(key);
    client.seen();
    client.hold(1, urgent);
    client.request({ ...CRM, peer: 9 });
    t.strictSame(client.seen(), ['0 send crm.corp.example']);
    client.wait(1000 / SETUP_MESSAGES_PER_SECOND);
    t.strictSame(client.seen(), [`125 send ${urgent?.domain}`]);
  },
);

await t.test('what is answered while others wait is not waited for', async (t) => {
  const client = new Client();
  const keys = names(SETUP_MESSAGES_PER_SECOND + 1);
  for (const key of keys) client.request(key);
  t.equal(client.setups.pollTimeout()?.at, 1125);
  client.setups.removeWhere(({ domain }) => domain === keys.at(-1)?.domain);
  t.equal(client.setups.pollTimeout()?.at, 1000 + RESEND_INTERVAL);
  for (const key of keys) client.status('active', key);
  t.equal(client.setups.pollTimeout(), undefined);
});

await t.test('a driver that comes late sends once and not what it missed', async (t) => {
  const client = new Client().request();
  client.seen();
  client.wakeAfter(3 * 3_600_000).status('active');
  t.strictSame(client.seen(), ['10800000 send crm.corp.example', '10800000 released']);
});

await t.test('while outputs wait, the deadline is now', async (t) => {
  const setups = new ResourceSetups();
  setups.request(CRM, PROXIES, instantAt(5));
  t.strictSame(setups.pollTimeout(), { at: 5, reason: 'queued' });
  setups.pollEvent();
  t.strictSame(setups.pollTimeout(), { at: 2005, reason: 'set-up unanswered' });
});

await t.test('no more than 32 packets are held, the newest are dropped', async (t) => {
  const client = new Client();
  for (let i = 0; i < MOST_HELD + 3; i++) client.hold(i);
  client.seen();
  client.status('active');
  t.strictSame(client.seen(), [
    `0 released ${Array.from({ length: MOST_HELD }, (_, i) => i).join(' ')}`,
  ]);
  t.match(client.setups.drops, { 'setup-queue-full': 3 });
});

await t.test('a packet is copied when it is held', async (t) => {
  const packet = Uint8Array.of(7);
  const client = new Client().hold(packet);
  packet[0] = 8;
  client.status('active').hold(packet);
  packet[0] = 9;
  t.strictSame(client.seen(), ['0 send crm.corp.example', '0 released 7', '0 released 8']);
});

await t.test('packets that are repeated while they are held are held once', async (t) => {
  const client = new Client();
  const syn = { flags: 0x02, sequence: 100 };
  client.hold(tcp({ ...syn, id: 1 })).hold(tcp({ ...syn, id: 2 }));
  t.match(client.setups.drops, { 'setup-repeated': 1 }, 'a SYN with another identification');
  client.hold(tcp({ ...syn, flags: 0xc2, id: 3 }));
  t.match(client.setups.drops, { 'setup-repeated': 2 }, 'with and without ECN');
  client.hold(udp('a')).hold(udp('a'));
  t.match(client.setups.drops, { 'setup-repeated': 3 }, 'equal packets');

  client.hold(udp('b'));
  client.hold(tcp({ ...syn, sequence: 101, id: 4 }));
  client.hold(tcp({ ...syn, port: 5001, id: 5 }));
  client
    .hold(tcp({ flags: 0x12, sequence: 100, id: 6 }))
    .hold(tcp({ flags: 0x12, sequence: 100, id: 7 }));
  client
    .hold(tcp({ flags: 0x10, sequence: 100, id: 8 }))
    .hold(tcp({ flags: 0x10, sequence: 100, id: 9 }));
  t.match(client.setups.drops, { 'setup-repeated': 3 }, 'others are not: a SYN-ACK is not a SYN');
  let released = 0;
  client.setups.handleStatus(CRM, 'active', client.now);
  for (let event = client.setups.pollEvent(); event; event = client.setups.pollEvent()) {
    if (event.type === 'released') released += event.packets.length;
  }
  t.equal(released, 9);
});

await t.test('arbitrary bytes can be held', async (t) => {
  const client = new Client();
  const syn = tcp({ flags: 0x02, sequence: 1, id: 1 });
  for (let end = 0; end < syn.length; end++) client.hold(syn.subarray(0, end));
  t.match(client.setups.drops, { 'setup-repeated': 0, 'setup-queue-full': syn.length - MOST_HELD });
});

await t.test('all names together hold no more than a bounded number of packets', async (t) => {
  const client = new Client();
  const keys = names(100);
  for (const key of keys) for (let i = 0; i < MOST_HELD; i++) client.hold(i, key);
  t.equal(client.setups.drops['setup-queue-full'], 100 * MOST_HELD - MOST_HELD_IN_ALL);
  client.setups.removePeer(3);
  t.equal(client.setups.drops['setup-forgotten'], MOST_HELD_IN_ALL);
  for (const key of keys) client.hold(1, key);
  t.equal(
    client.setups.drops['setup-queue-full'],
    100 * MOST_HELD - MOST_HELD_IN_ALL,
    'room again',
  );
});

await t.test('the name that was used longest ago gives way', async (t) => {
  const client = new Client();
  const keys = names(MOST_SETUPS);
  for (const key of keys) client.request(key);
  const isKnown = (i: number) => client.state(keys[i]) !== undefined;
  client.request(keys[0]);
  client.setups.isHeld(keys[2] ?? CRM);
  for (let i = 0; i < 3; i++) client.request({ ...CRM, domain: `new${i}.example` });
  t.equal(client.setups.statuses().length, MOST_SETUPS);
  t.strictSame([0, 1, 2, 3, 4, 5].map(isKnown), [true, false, true, false, false, true]);
});

await t.test('names without end cost no more memory, and the same time each', async (t) => {
  const client = new Client();
  const ask = (from: number, to: number) => {
    const start = process.hrtime.bigint();
    for (let i = from; i < to; i++) {
      client.hold(packetOf(i), { peer: i % 50, resource: 'any', domain: `${i}.example` });
      if (i % 100 === 0) client.wait(10).seen();
    }
    return Number(process.hrtime.bigint() - start) / (to - from);
  };
  const first = ask(0, 20_000);
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  const last = ask(20_000, 100_000);
  globalThis.gc?.();
  const grown = process.memoryUsage().heapUsed - before;
  t.equal(client.setups.statuses().length, MOST_SETUPS);
  t.ok(globalThis.gc === undefined || grown < 3_000_000, `${grown} bytes`);
  t.comment(`${first.toFixed()} ns each at first, ${last.toFixed()} ns later`);
  t.ok(last < 20 * first);
});

await t.test('a peer or a resource that is removed takes its set-ups along', async (t) => {
  const other = { ...CRM, resource: 'git', domain: 'git.corp.example' };
  const client = new Client().hold(1).hold(2, other);
  client.setups.removeWhere(({ resource }) => resource === 'git');
  t.equal(client.state(other), undefined);
  t.equal(client.state(), 'pending');
  client.status('active', other);
  client.setups.removePeer(3);
  t.strictSame(client.setups.statuses(), []);
  t.equal(client.setups.pollTimeout(), undefined);
  t.match(client.setups.drops, { 'setup-forgotten': 2 });
  client.seen();
  client.status('active').peerLost().wait(60_000);
  client.setups.removePeer(3);
  t.strictSame(client.seen(), []);
});

/** So many names at the gateway of CRM. */
function names(count: number): SetupKey[] {
  return Array.from({ length: count }, (_, i) => ({ ...CRM, domain: `n${i}.corp.example` }));
}

function packetOf(number: number): Uint8Array {
  return new Uint8Array(100).fill(number);
}

/** A TCP segment without options; its checksums are not looked at. */
function tcp(segment: { flags: number; sequence: number; id: number; port?: number }): Uint8Array {
  const packet = new Uint8Array(40);
  const view = new DataView(packet.buffer);
  packet.set([0x45, 0, 0, 40]);
  view.setUint16(4, segment.id);
  packet.set([64, 6], 8);
  packet.set([192, 168, 1, 10, 100, 96, 0, 4], 12);
  view.setUint16(20, segment.port ?? 5000);
  view.setUint16(22, 443);
  view.setUint32(24, segment.sequence);
  packet.set([0x50, segment.flags], 32);
  return packet;
}

function udp(text: string): Uint8Array {
  const [source, destination] = [socket('192.168.1.10:5000'), socket('100.96.0.4:53')];
  return buildUdpPacket({ source, destination, payload: new TextEncoder().encode(text) });
}

function socket(text: string): SocketAddress {
  const address = parseSocketAddress(text);
  if (!address.ok) throw new Error(text);
  return address.value;
}

function ip(text: string): IpAddress {
  const address = parseIpAddress(text);
  if (!address.ok) throw new Error(text);
  return address.value;
}
