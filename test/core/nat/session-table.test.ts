import t from 'tap';
import { parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';
import { ipAddressBytes } from '../../../core/net/ip-address.ts';
import {
  CLOSING_LIFETIME,
  DATAGRAM_LIFETIME,
  MOST_SESSIONS,
  SessionTable,
  TCP_LIFETIME,
  UNCONFIRMED_LIFETIME,
} from '../../../core/nat/session-table.ts';
import type { SessionFacts } from '../../../core/nat/session.ts';
import { natTuple, type NatTuple } from '../../../core/nat/tuple.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { SeededRandom } from '../wireguard/network.ts';
import { NaiveSessions } from './naive-sessions.ts';

const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
t.comment(`SEED=${seed}`);

const TCP = 6;
const UDP = 17;
const ICMP = 1;
const NOW = instantAt(1000);
const CLIENT = ip('100.64.0.2');
const PROXY = ip('100.96.0.1');
const SERVER = ip('10.0.0.7');

await t.test('a reply finds the session of its request', async (t) => {
  for (const [client, proxy, server] of [
    [CLIENT, PROXY, SERVER],
    [ip('fd00::2'), ip('fd00:1::1'), ip('2001:db8::7')],
  ] as const) {
    const table = createTable();
    const session = open(table, natTuple(UDP, client, 5000, proxy), server);
    t.equal(table.findRequest(natTuple(UDP, client, 5000, proxy)), session);
    t.equal(table.findReply(natTuple(UDP, client, 5000, server)), session);
    t.equal(table.findReply(natTuple(TCP, client, 5000, server)), undefined, 'other protocol');
    t.equal(table.findReply(natTuple(UDP, client, 5001, server)), undefined, 'other port');
    t.equal(table.findRequest(natTuple(UDP, client, 5000, server)), undefined, 'not inside');
    t.same(table.rewrite(session, false, false), {
      session,
      isReply: false,
      destination: ipAddressBytes(server),
    });
    t.same(table.rewrite(session, true, false), {
      session,
      isReply: true,
      source: ipAddressBytes(proxy),
    });
  }
});

await t.test('a port that is taken gives way to the next free one', async (t) => {
  const table = createTable();
  const proxies = ['100.96.0.1', '100.96.0.2', '100.96.0.3'].map(ip);
  const sessions = proxies.map((proxy) =>
    open(table, natTuple(TCP, CLIENT, 65_534, proxy), SERVER),
  );
  t.same(
    sessions.map((session) => table.read(session).outside.port),
    [65_534, 65_535, 1],
    'wrapping from 65535 to 1',
  );
  t.same(table.rewrite(sessions[2]!, false, false).sourcePort, 1);
  t.same(table.rewrite(sessions[2]!, true, false).destinationPort, 65_534);
  t.same(table.rewrite(sessions[2]!, true, true).destinationPort, undefined, 'not in a fragment');
  const elsewhere = open(table, natTuple(TCP, CLIENT, 65_534, ip('100.96.0.4')), ip('10.0.0.8'));
  t.equal(table.read(elsewhere).outside.port, 65_534, 'free with another server');
});

await t.test('the identifier of an echo is a source port both ways', async (t) => {
  const table = createTable();
  open(table, natTuple(ICMP, CLIENT, 9, PROXY), SERVER);
  const second = open(table, natTuple(ICMP, CLIENT, 9, ip('100.96.0.2')), SERVER);
  t.equal(table.rewrite(second, false, false).sourcePort, 10);
  t.equal(table.rewrite(second, true, false).sourcePort, 9);
  t.equal(table.rewrite(second, true, false).destinationPort, undefined);
});

await t.test('two clients may use the same proxy for different servers', async (t) => {
  const table = createTable();
  const other = ip('100.64.0.3');
  const a = open(table, natTuple(TCP, CLIENT, 4000, PROXY), SERVER);
  const b = open(table, natTuple(TCP, other, 4000, PROXY), ip('10.0.0.8'));
  t.equal(table.read(a).outside.port, 4000);
  t.equal(table.read(b).outside.port, 4000);
  t.equal(table.findReply(natTuple(TCP, CLIENT, 4000, SERVER)), a);
  t.equal(table.findReply(natTuple(TCP, other, 4000, ip('10.0.0.8'))), b);
});

await t.test('LAN hosts share an address of ours, each with a port of its own', async (t) => {
  const table = createTable();
  const tunnel = ipAddressBytes(CLIENT);
  const hosts = ['192.168.1.5', '192.168.1.6'].map(ip);
  const ports = hosts.map((host) => {
    const inside = natTuple(TCP, host, 4000, PROXY);
    const outside = { source: tunnel, destination: inside.destination };
    const opened = table.open(inside, outside, 0, 'LAN', NOW);
    if (!opened.ok) throw new Error(opened.why);
    t.same(table.rewrite(opened.value, true, false).destination, inside.source);
    return table.read(opened.value).outside.port;
  });
  t.same(ports, [4000, 4001]);
});

await t.test('without a free port the flow is refused', async (t) => {
  const table = createTable({ mostPerOwner: 100_000 });
  for (let port = 1; port <= 65_535; port++) {
    open(table, natTuple(UDP, CLIENT, port, PROXY), SERVER);
  }
  const inside = natTuple(UDP, CLIENT, 5, ip('100.96.0.2'));
  t.match(openOutcome(table, inside, SERVER), { ok: false, why: 'exhausted' });
  t.match(openOutcome(table, inside, ip('10.0.0.8')), { ok: true });
  t.match(openOutcome(table, natTuple(47, CLIENT, 0, PROXY), SERVER), { ok: true });
  t.match(
    openOutcome(table, natTuple(47, CLIENT, 0, ip('100.96.0.2')), SERVER),
    { ok: false, why: 'exhausted' },
    'a protocol without ports has one',
  );
});

await t.test('a session without a reply ends 60 s after its last request', async (t) => {
  const table = createTable();
  const session = open(table, natTuple(TCP, CLIENT, 1, PROXY), SERVER);
  table.handleFacts(session, facts({}), at(NOW, 30_000));
  t.same(table.pollTimeout(), {
    at: at(NOW, 30_000 + UNCONFIRMED_LIFETIME),
    reason: 'NAT session ends',
  });
  table.handleTimeout(at(NOW, 30_000 + UNCONFIRMED_LIFETIME - 1));
  t.equal(table.size, 1);
  table.handleTimeout(at(NOW, 30_000 + UNCONFIRMED_LIFETIME));
  t.equal(table.size, 0);
  t.equal(table.pollTimeout(), undefined);
});

await t.test('a reply confirms, and then any packet keeps alive', async (t) => {
  for (const [protocol, lifetime] of [
    [TCP, TCP_LIFETIME],
    [UDP, DATAGRAM_LIFETIME],
    [ICMP, DATAGRAM_LIFETIME],
  ] as const) {
    const table = createTable();
    const session = open(table, natTuple(protocol, CLIENT, 1, PROXY), SERVER);
    table.handleFacts(session, facts({ isReply: true }), at(NOW, 50_000));
    t.equal(table.pollTimeout()?.at, at(NOW, 50_000 + lifetime));
    table.handleFacts(session, facts({ isReply: true }), at(NOW, 60_000));
    t.equal(table.pollTimeout()?.at, at(NOW, 60_000 + lifetime));
    table.handleFacts(session, facts({}), at(NOW, 70_000));
    t.equal(table.pollTimeout()?.at, at(NOW, 70_000 + lifetime));
  }
});

await t.test('after both FINs a connection lives for 5 s', async (t) => {
  const table = createTable();
  const inside = natTuple(TCP, CLIENT, 1, PROXY);
  const session = open(table, inside, SERVER);
  table.handleFacts(session, facts({ isReply: true, syn: true }), NOW);
  table.handleFacts(session, facts({ fin: true }), NOW);
  t.equal(table.pollTimeout()?.at, at(NOW, TCP_LIFETIME), 'half closed');
  table.handleFacts(session, facts({ isReply: true, fin: true }), at(NOW, 10));
  t.equal(table.pollTimeout()?.at, at(NOW, 10 + CLOSING_LIFETIME));
  table.handleFacts(session, facts({}), at(NOW, 3000));
  t.equal(table.pollTimeout()?.at, at(NOW, 3000 + CLOSING_LIFETIME), 'the last ACK counts');
  table.handleFacts(session, facts({ syn: true }), at(NOW, 4000));
  t.equal(table.read(session).state, 'unconfirmed', 'a new connection from the same port');
  t.equal(table.findRequest(inside), session);
  table.handleFacts(session, facts({ isReply: true, syn: true }), at(NOW, 4001));
  t.equal(table.read(session).state, 'confirmed', 'the FINs before were of the other one');
});

await t.test('a RST ends a session at once', async (t) => {
  const ended: unknown[] = [];
  const table = createTable({ onEnd: (session) => ended.push(table.read(session)) });
  const session = open(table, natTuple(TCP, CLIENT, 1, PROXY), SERVER);
  table.handleFacts(session, facts({ isReply: true, rst: true, packets: 2, bytes: 80 }), NOW);
  table.handleFacts(session, facts({ packets: 3 }), NOW);
  t.equal(table.pollTimeout()?.at, NOW);
  table.handleTimeout(NOW);
  t.equal(table.size, 0);
  t.match(ended, [
    { state: 'ended', requests: { packets: 3 }, replies: { packets: 2, bytes: 80 } },
  ]);
});

await t.test(
  'a late reply is known as one of an ended session until a new one has its tuple',
  async (t) => {
    const table = createTable({ mostEnded: 2 });
    const inside = natTuple(UDP, CLIENT, 1, PROXY);
    const outside = natTuple(UDP, CLIENT, 1, SERVER);
    const session = open(table, inside, SERVER);
    table.end(session);
    t.equal(table.findReply(outside), session);
    t.ok(table.hasEnded(session));
    t.equal(table.findRequest(inside), undefined);
    table.handleFacts(session, facts({ isReply: true }), NOW);
    t.ok(table.hasEnded(session), 'nothing revives it');
    const next = open(table, inside, SERVER);
    t.equal(table.findReply(outside), next);
    t.notOk(table.hasEnded(next));
    t.equal(table.read(next).outside.port, 1, 'the port of an ended session is free');

    const ports = [11, 12, 13];
    for (const port of ports) table.end(open(table, natTuple(UDP, CLIENT, port, PROXY), SERVER));
    t.same(
      ports.map((port) => table.findReply(natTuple(UDP, CLIENT, port, SERVER)) !== undefined),
      [false, true, true],
      'the oldest is forgotten',
    );
  },
);

await t.test('fragments belong to the newest session between the two', async (t) => {
  const table = createTable();
  const first = open(table, natTuple(UDP, CLIENT, 1, PROXY), SERVER);
  const second = open(table, natTuple(UDP, CLIENT, 2, PROXY), ip('10.0.0.8'));
  t.equal(table.findRequestFragment(natTuple(UDP, CLIENT, 0, PROXY)), second);
  t.equal(table.findReplyFragment(natTuple(UDP, CLIENT, 0, SERVER)), first);
  t.equal(table.findRequestFragment(natTuple(TCP, CLIENT, 0, PROXY)), undefined);
  table.end(second);
  t.equal(table.findRequestFragment(natTuple(UDP, CLIENT, 0, PROXY)), first);
  t.ok(table.hasBetween(ipAddressBytes(CLIENT), ipAddressBytes(PROXY)));
  table.end(first);
  t.notOk(table.hasBetween(ipAddressBytes(CLIENT), ipAddressBytes(PROXY)));
});

await t.test('an owner has a limit, a full table ends who waits for longest', async (t) => {
  const table = createTable({ mostSessions: 3, mostPerOwner: 2 });
  const first = open(table, natTuple(UDP, CLIENT, 1, PROXY), SERVER, 7);
  const second = open(table, natTuple(UDP, CLIENT, 2, PROXY), SERVER, 7);
  const third = natTuple(UDP, CLIENT, 3, PROXY);
  t.match(openOutcome(table, third, SERVER, 7), { ok: false, why: 'too-many-of-owner' });
  open(table, natTuple(UDP, ip('100.64.0.3'), 1, PROXY), SERVER, 8);
  table.handleFacts(first, facts({ isReply: true }), NOW);
  const other = open(table, natTuple(UDP, ip('100.64.0.3'), 2, PROXY), SERVER, 8);
  t.ok(table.hasEnded(second), 'unconfirmed, and the oldest of those');
  t.equal(table.size, 3);
  t.equal(table.sizeOf(7), 1);
  const all = Array.from(table.sessions());
  for (const session of all) table.handleFacts(session, facts({ isReply: true }), NOW);
  t.match(openOutcome(table, third, SERVER, 7), { ok: false, why: 'too-many' });
  table.endAllOf(8);
  t.ok(table.hasEnded(other));
  t.equal(table.size, 1);
});

await t.test(
  'the sessions with the latest packets come first, whatever their states',
  async (t) => {
    const table = createTable();
    const sessions = [TCP, UDP, TCP, TCP, UDP].map((protocol, i) =>
      open(table, natTuple(protocol, CLIENT, 1000 + i, PROXY), SERVER),
    );
    const [first, second, third, fourth, last] = sessions;
    if (first === undefined || second === undefined || third === undefined) throw new Error('none');
    table.handleFacts(third, facts({ isReply: true }), at(NOW, 1));
    table.handleFacts(first, facts({ isReply: true }), at(NOW, 2));
    table.handleFacts(second, facts({ isReply: true }), at(NOW, 3));
    table.handleFacts(first, facts({ fin: true }), at(NOW, 4));
    table.handleFacts(first, facts({ fin: true, isReply: true }), at(NOW, 5));
    t.same([...table.latest()], [first, second, third, last, fourth]);
    t.same(new Set(table.latest()), new Set(table.sessions()));
    table.end(second);
    t.same([...table.latest()], [first, third, last, fourth]);
    t.same([...createTable().latest()], []);
  },
);

await t.test('behaves like lists that are searched from the front', async (t) => {
  const random = new SeededRandom(seed);
  const limits = { mostSessions: 60, mostPerOwner: 25, mostEnded: 8 };
  const table = createTable(limits);
  const naive = new NaiveSessions(limits);
  /** Of each naive session its row. */
  const rows = new Map<object, number>();
  const clients = ['100.64.0.2', '100.64.0.3', '100.64.0.4', 'fd00::2'].map(ip);
  const proxies = ['100.96.0.1', '100.96.0.2', 'fd00:1::1'].map(ip);
  const servers = ['10.0.0.1', '10.0.0.2', 'fd00:2::1'].map(ip);
  const sameFamily = (list: readonly IpAddress[], as: IpAddress): IpAddress => {
    const fitting = list.filter((address) => address.includes(':') === as.includes(':'));
    return fitting[random.below(fitting.length)]!;
  };
  let now = 0;
  for (let step = 0; step < 5000; step++) {
    const context = `SEED=${seed} step ${step}`;
    const owner = random.below(clients.length);
    const client = clients[owner]!;
    const protocol = [TCP, UDP, ICMP, 47][random.below(4)]!;
    const port = protocol === 47 ? 0 : [65_534, 65_535, 1, 2, 0][random.below(5)]!;
    const inside = natTuple(protocol, client, port, sameFamily(proxies, client));
    const outside = natTuple(protocol, client, port, sameFamily(servers, client));
    now += random.below(20) === 0 ? random.below(90_000) : 1 + random.below(300);
    table.handleTimeout(instantAt(now));
    naive.handleTimeout(now);
    const known = naive.findRequest(inside);
    check(table.findRequest(inside), known, `${context}: request`);
    check(table.findReply(outside), naive.findReply(outside), `${context}: reply`);
    check(table.findRequestFragment(inside), naive.newestRequest(inside), `${context}: fragment`);
    check(table.findReplyFragment(outside), naive.newestReply(outside), `${context}: fragment`);
    if (known === undefined) {
      const opened = table.open(inside, outside, owner, 'tag', instantAt(now));
      const expected = naive.open(inside, outside, owner, now);
      if (typeof expected === 'string') same(opened, { ok: false, why: expected }, context);
      else {
        same(opened.ok, true, context);
        if (opened.ok) {
          rows.set(expected, opened.value);
          same(table.read(opened.value).outside.port, expected.outside.port, context);
        }
      }
    } else if (random.below(12) === 0) {
      table.end(rows.get(known)!);
      naive.end(known);
    } else {
      const happened = facts({
        isReply: random.below(2) === 0,
        syn: random.below(6) === 0,
        fin: random.below(6) === 0,
        rst: random.below(30) === 0,
      });
      table.handleFacts(rows.get(known)!, happened, instantAt(now));
      table.handleTimeout(instantAt(now));
      naive.handleFacts(known, happened, now);
    }
    same(table.size, naive.live.length, `${context}: size`);
    same(table.pollTimeout()?.at, naive.nextEnd(), `${context}: deadline`);
  }
  t.pass('no difference');

  function check(row: number | undefined, session: object | undefined, message: string): void {
    same(row, session && rows.get(session), message);
  }

  function same(found: unknown, wanted: unknown, message: string): void {
    if (JSON.stringify(found) !== JSON.stringify(wanted)) t.same(found, wanted, message);
  }
});

await t.test(
  'translation there and back gives what was sent, of many clients at once',
  async (t) => {
    const random = new SeededRandom(seed);
    const table = createTable({ mostPerOwner: MOST_SESSIONS });
    const seen = new Set<string>();
    const servers = [1, 2, 3].map((n) => ip(`10.0.0.${n}`));
    for (let n = 0; n < 8000; n++) {
      const client = ip(`100.64.0.${2 + random.below(20)}`);
      const proxy = ip(`100.96.0.${1 + random.below(20)}`);
      const inside = natTuple(UDP, client, 1 + random.below(400), proxy);
      if (table.findRequest(inside) !== undefined) continue;
      const session = open(table, inside, servers[random.below(3)]!);
      const outside = table.tuple(session, 'outside');
      const key = JSON.stringify(outside);
      if (seen.has(key)) t.fail(`SEED=${seed}: two sessions share ${key}`);
      seen.add(key);
    }
    for (const session of table.sessions()) {
      const back = table.findReply(table.tuple(session, 'outside'));
      if (back !== session) t.fail(`SEED=${seed}: ${session} came back as ${back}`);
    }
    t.ok(table.size > 4000);
  },
);

await t.test('a hundred thousand sessions take at most 200 bytes each', async (t) => {
  const table = createTable({ mostPerOwner: MOST_SESSIONS });
  const tag = { resource: 'r' };
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  for (let n = 0; n < MOST_SESSIONS; n++) {
    const client = ip(`100.64.${n & 31}.1`);
    open(table, natTuple(UDP, client, 1 + (n >> 5), PROXY), SERVER, 0, tag);
  }
  globalThis.gc?.();
  const heap =
    globalThis.gc === undefined ? 8 * MOST_SESSIONS : process.memoryUsage().heapUsed - before;
  const each = (table.byteLength + heap) / MOST_SESSIONS;
  t.comment(
    `${each.toFixed(1)} bytes a session, ${(heap / MOST_SESSIONS).toFixed(1)} of them on the heap`,
  );
  t.ok(each <= 200);
  t.equal(table.size, MOST_SESSIONS);
});

function createTable(
  options: Partial<ConstructorParameters<typeof SessionTable>[0]> = {},
): SessionTable<unknown> {
  return new SessionTable<unknown>({ random: new SeededRandom(seed), ...options });
}

function openOutcome(
  table: SessionTable<unknown>,
  inside: NatTuple,
  server: IpAddress,
  owner = 0,
  tag: unknown = 'tag',
) {
  const outside = { source: inside.source, destination: ipAddressBytes(server) };
  return table.open(inside, outside, owner, tag, NOW);
}

function open(
  table: SessionTable<unknown>,
  inside: NatTuple,
  server: IpAddress,
  owner = 0,
  tag: unknown = 'tag',
): number {
  const opened = openOutcome(table, inside, server, owner, tag);
  if (!opened.ok) throw new Error(opened.why);
  return opened.value;
}

function facts(some: Partial<SessionFacts>): SessionFacts {
  return { isReply: false, packets: 1, bytes: 100, syn: false, fin: false, rst: false, ...some };
}

function at(from: Instant, ms: number): Instant {
  return instantAt(from + ms);
}

function ip(text: string): IpAddress {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
