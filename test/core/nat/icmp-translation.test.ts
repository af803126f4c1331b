import t from 'tap';
import { isIcmpErrorFlow, translateErrorOfSession } from '../../../core/nat/icmp-translation.ts';
import { SessionTable } from '../../../core/nat/session-table.ts';
import { natTuple } from '../../../core/nat/tuple.ts';
import { ipAddressBytes, parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { tcp, udp } from '../fastpath/packets.ts';
import { SeededRandom } from '../wireguard/network.ts';
import { echo, icmpError, ipProblem, quoteOf } from './icmp-packets.ts';

const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
t.comment(`SEED=${seed}`);
const NOW = instantAt(0);

const worlds = {
  IPv4: {
    client: '100.64.0.2',
    proxy: '100.96.0.1',
    other: '100.96.0.2',
    server: '10.0.0.7',
    router: '10.0.0.254',
    icmp: 1,
    errors: [
      [3, 1],
      [3, 4],
      [11, 0],
    ],
  },
  IPv6: {
    client: 'fd00::2',
    proxy: 'fd00:1::1',
    other: 'fd00:1::2',
    server: '2001:db8::7',
    router: '2001:db8::ff',
    icmp: 58,
    errors: [
      [1, 3],
      [2, 0],
      [3, 0],
    ],
  },
} as const;

for (const [family, world] of Object.entries(worlds)) {
  await t.test(`an error about a request reaches its sender over ${family}`, async (t) => {
    const { client, proxy, other, server, router, icmp } = world;
    for (const [protocol, build] of [
      [
        6,
        (source: string, port: number, destination: string) =>
          tcp({ source, destination, sourcePort: port }),
      ],
      [
        17,
        (source: string, port: number, destination: string) =>
          udp({ source, destination, sourcePort: port }),
      ],
      [
        icmp,
        (source: string, port: number, destination: string) => echo(source, destination, port),
      ],
    ] as const) {
      const sessions = new SessionTable<string>({ random: new SeededRandom(seed) });
      const outside = { source: bytesOf(client), destination: bytesOf(server) };
      sessions.open(natTuple(protocol, ip(client), 4000, ip(other)), outside, 0, '', NOW);
      const opened = sessions.open(
        natTuple(protocol, ip(client), 4000, ip(proxy)),
        outside,
        0,
        '',
        NOW,
      );
      for (const [type, code] of world.errors) {
        // The second session has the next port.
        const error = icmpError(
          { source: router, destination: client, type, code, rest: 1300 },
          build(client, 4001, server),
        );
        t.equal(ipProblem(error), undefined, 'the test is right');
        const translated = translateErrorOfSession(error, sessions);
        t.match(translated, { ok: true, value: { session: opened.ok && opened.value } });
        if (!translated.ok) continue;
        const wanted = icmpError(
          { source: proxy, destination: client, type, code, rest: 1300 },
          build(client, 4000, proxy),
        );
        t.same(translated.value.packet, wanted, `protocol ${protocol}, type ${type}`);
        t.equal(ipProblem(translated.value.packet), undefined);
        t.equal(ipProblem(quoteOf(translated.value.packet)), undefined, 'the quoted packet too');
      }
      // What follows the first 8 bytes of the transport header may be missing.
      const short = build(client, 4001, server).subarray(0, (family === 'IPv4' ? 20 : 40) + 8);
      const cut = icmpError(
        { source: router, destination: client, type: world.errors[0][0], code: 1, rest: 0 },
        short,
      );
      const translated = translateErrorOfSession(cut, sessions);
      t.ok(translated.ok);
      if (translated.ok) t.equal(ipProblem(translated.value.packet), undefined);
    }
  });
}

await t.test(
  'an error reaches the LAN host behind our address, from the router that sent it',
  async (t) => {
    const sessions = new SessionTable<string>({ random: new SeededRandom(seed) });
    const inside = natTuple(17, ip('192.168.1.5'), 4000, ip('100.96.0.1'));
    sessions.open(
      inside,
      { source: bytesOf('100.64.0.2'), destination: inside.destination },
      0,
      '',
      NOW,
    );
    const error = icmpError(
      { source: '100.96.0.9', destination: '100.64.0.2', type: 11, code: 0, rest: 0 },
      udp({ source: '100.64.0.2', destination: '100.96.0.1', sourcePort: 4000 }),
    );
    const translated = translateErrorOfSession(error, sessions);
    t.ok(translated.ok);
    if (!translated.ok) return;
    t.same(
      translated.value.packet,
      icmpError(
        { source: '100.96.0.9', destination: '192.168.1.5', type: 11, code: 0, rest: 0 },
        udp({ source: '192.168.1.5', destination: '100.96.0.1', sourcePort: 4000 }),
      ),
    );
  },
);

await t.test('what is no error about an open session goes nowhere', async (t) => {
  const { client, proxy, server, router } = worlds.IPv4;
  const sessions = new SessionTable<string>({ random: new SeededRandom(seed) });
  const outside = { source: bytesOf(client), destination: bytesOf(server) };
  const opened = sessions.open(natTuple(17, ip(client), 4000, ip(proxy)), outside, 0, '', NOW);
  const about = (port: number): Uint8Array =>
    udp({ source: client, destination: server, sourcePort: port });
  const error = { source: router, destination: client, type: 11, code: 0, rest: 0 };
  const whyNot = (packet: Uint8Array): unknown => {
    const translated = translateErrorOfSession(packet, sessions);
    return translated.ok ? 'translated' : translated.why;
  };
  t.equal(whyNot(icmpError(error, about(4000))), 'translated');
  t.equal(whyNot(icmpError(error, about(4001))), 'no-session');
  t.equal(whyNot(icmpError({ ...error, destination: '100.64.0.3' }, about(4000))), 'not-to-sender');
  t.equal(whyNot(icmpError({ ...error, type: 5 }, about(4000))), 'not-a-translatable-error');
  t.equal(whyNot(icmpError({ ...error, type: 12 }, about(4000))), 'not-a-translatable-error');
  t.equal(whyNot(about(4000)), 'not-a-translatable-error');
  t.equal(whyNot(icmpError(error, about(4000).subarray(0, 19))), 'malformed');
  const damaged = icmpError(error, about(4000));
  damaged[30] = ~(damaged[30] ?? 0);
  t.equal(whyNot(damaged), 'malformed', 'its checksum is wrong');
  const reply = udp({
    source: proxy,
    destination: client,
    sourcePort: 6000,
    destinationPort: 4000,
  });
  t.equal(
    whyNot(icmpError({ ...error, source: client, destination: proxy }, reply)),
    'no-session',
    'of a client about a reply',
  );
  if (opened.ok) sessions.end(opened.value);
  t.equal(whyNot(icmpError(error, about(4000))), 'ended-session');
});

await t.test('no bytes make it throw', async (t) => {
  const random = new SeededRandom(seed);
  const sessions = new SessionTable<string>({ random });
  const outside = { source: bytesOf('100.64.0.2'), destination: bytesOf('10.0.0.7') };
  sessions.open(natTuple(17, ip('100.64.0.2'), 4000, ip('100.96.0.1')), outside, 0, '', NOW);
  const error = { source: '10.0.0.254', destination: '100.64.0.2', type: 11, code: 0, rest: 0 };
  const about = udp({ source: '100.64.0.2', destination: '10.0.0.7', sourcePort: 4000 });
  for (let n = 0; n < 20_000; n++) {
    const packet = icmpError(error, about).slice(0, 1 + random.below(150));
    for (let m = random.below(4); m > 0; m--) packet[random.below(packet.length)] = random.word();
    translateErrorOfSession(packet, sessions);
  }
  t.pass(`SEED=${seed}`);
});

await t.test('flows of errors are told from flows of echoes', async (t) => {
  const flow = {
    family: 4 as const,
    protocol: 1,
    source: bytesOf('10.0.0.1'),
    destination: bytesOf('10.0.0.2'),
    sourcePort: 0,
    destinationPort: 0x0301,
    isFragment: false,
  };
  t.ok(isIcmpErrorFlow(flow));
  t.notOk(isIcmpErrorFlow({ ...flow, destinationPort: 0x0800 }));
  t.notOk(isIcmpErrorFlow({ ...flow, protocol: 17 }));
  t.ok(isIcmpErrorFlow({ ...flow, family: 6, protocol: 58, destinationPort: 0x0200 }));
  t.notOk(isIcmpErrorFlow({ ...flow, family: 6, protocol: 58, destinationPort: 0x8000 }));
});

function bytesOf(text: string): Uint8Array {
  return ipAddressBytes(ip(text));
}

function ip(text: string): IpAddress {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
