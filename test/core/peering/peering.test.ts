import fc from 'fast-check';
import t from 'tap';
import { parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';
import { parseSocketAddress, type SocketAddress } from '../../../core/net/socket-address.ts';
import { buildUdpPacket } from '../../../core/packet/udp.ts';
import {
  encodePeering,
  LONGEST_PEERING,
  type PeeringMessage,
} from '../../../core/peering/message.ts';
import { Peering, PEERING_MESSAGES_PER_SECOND } from '../../../core/peering/peering.ts';
import { instantAt } from '../../../core/sansio/instant.ts';

const GOODBYE: PeeringMessage = { type: 'goodbye', reason: 'restarting' };
const NOW = instantAt(5000);

await t.test('a message arrives over IPv4 and over IPv6', async (t) => {
  for (const [ours, theirs] of [
    ['100.64.0.1', '100.64.0.2'],
    ['fd00::1', 'fd00::2'],
  ] as const) {
    const [left, right] = pair([ours], [theirs]);
    const packet = left.send(7, GOODBYE)!;
    t.ok(packet.length < 1280);
    t.strictSame(right.read(9, packet, NOW), { ok: true, value: GOODBYE });
    t.strictSame(sum(right), 0);
  }
});

await t.test('it goes between addresses of a family that both have', async (t) => {
  const [left, right] = pair(['100.64.0.1', 'fd00::1'], ['fd00::2', 'fd00::3']);
  const packet = left.send(7, GOODBYE)!;
  t.equal((packet[0] ?? 0) >> 4, 6);
  t.ok(right.read(9, packet, NOW).ok);
  const [alone] = pair(['100.64.0.1'], ['fd00::2']);
  t.equal(alone.send(7, GOODBYE), undefined);
  t.equal(alone.send(8, GOODBYE), undefined, 'nor to a peer that was not set');
  const [, nameless] = pair([], ['fd00::2']);
  t.equal(nameless.send(9, GOODBYE), undefined);
});

await t.test('the longest message fits into the smallest tunnel', async (t) => {
  const [left, right] = pair(['fd00::1'], ['fd00::2']);
  const packet = left.send(7, assignedIps('x'.repeat(63)))!;
  t.ok(right.read(9, packet, NOW).ok);
  const overhead = packet.length - encodePeering(assignedIps('x'.repeat(63))).length;
  // RFC 8200 §5: every link carries 1280 bytes, so a tunnel has at least that MTU.
  t.ok(LONGEST_PEERING + overhead <= 1280);
});

await t.test('a message that nobody would read is not sent', async (t) => {
  const [left] = pair(['fd00::1'], ['fd00::2']);
  const escapes = '\\001'.repeat(62);
  t.equal(left.send(7, assignedIps(`${escapes}.${escapes}.${escapes}.${escapes}`)), undefined);
});

await t.test('the source port is free, as another data plane may choose it', async (t) => {
  const [, right] = pair(['100.64.0.1'], ['100.64.0.2']);
  const packet = datagram('100.64.0.1:40000', '100.64.0.2:2680');
  t.match(right.read(9, packet, NOW), { ok: true });
});

await t.test('what did not come from the daemon of the peer is dropped and counted', async (t) => {
  const genuine = datagram('100.64.0.1:2680', '100.64.0.2:2680');
  const fragment = genuine.slice();
  fragment[6] = 0x20;
  const cases = {
    'not-from-peer': datagram('10.1.0.5:2680', '100.64.0.2:2680'),
    'not-for-us': datagram('100.64.0.1:2680', '10.2.0.1:2680'),
    'bad-udp-checksum': genuine.with(30, 0x55),
    fragment,
    'not-udp': genuine.with(9, 6),
    'truncated-udp': genuine.with(24, 0xff),
    malformed: genuine.subarray(0, -1),
    'unknown-type': datagram('100.64.0.1:2680', '100.64.0.2:2680', new Uint8Array(10).with(0, 4)),
  };
  const [, right] = pair(['100.64.0.1'], ['100.64.0.2']);
  let count = 0;
  for (const [why, packet] of Object.entries(cases)) {
    t.strictSame(right.read(9, packet, NOW), { ok: false, why });
    t.match(right.drops, { [`peering-${why}`]: 1 });
    t.equal(sum(right), ++count);
  }
  t.match(right.read(9, datagram('100.64.0.1:2680', '100.64.0.2:53'), NOW), { why: 'not-for-us' });
  t.match(right.read(9, encodePeering(GOODBYE), NOW), { why: 'malformed' }, 'no IP packet');
  t.match(right.read(8, genuine, NOW), { why: 'unknown-peer' });
  t.ok(right.read(9, genuine, NOW).ok);
});

await t.test('one peer does not speak with the address of another', async (t) => {
  const [, right] = pair(['100.64.0.1'], ['100.64.0.2']);
  right.setPeer(10, [ip('100.64.0.3')]);
  const packet = datagram('100.64.0.1:2680', '100.64.0.2:2680');
  t.match(right.read(10, packet, NOW), { why: 'not-from-peer' });
});

await t.test('addresses that change count at once', async (t) => {
  const [, right] = pair(['100.64.0.1'], ['100.64.0.2']);
  const packet = datagram('100.64.0.1:2680', '100.64.0.2:2680');
  right.setPeer(9, [ip('100.64.0.9')]);
  t.match(right.read(9, packet, NOW), { why: 'not-from-peer' });
  right.setPeer(9, [ip('100.64.0.1')]);
  t.ok(right.read(9, packet, NOW).ok);
  right.setOwnAddresses([ip('100.64.0.8')]);
  t.match(right.read(9, packet, NOW), { why: 'not-for-us' });
  right.removePeer(9);
  t.match(right.read(9, packet, NOW), { why: 'unknown-peer' });
});

await t.test('a peer is heard twenty times a second, whatever others do', async (t) => {
  const [, right] = pair(['100.64.0.1'], ['100.64.0.2']);
  right.setPeer(10, [ip('100.64.0.3')]);
  const packet = datagram('100.64.0.1:2680', '100.64.0.2:2680');
  let read = 0;
  for (let ms = 0; ms < 10_000; ms++) {
    if (right.read(9, packet, instantAt(ms)).ok) read++;
    if (ms === 5000) right.setPeer(9, [ip('100.64.0.1'), ip('fd00::1')]);
  }
  t.equal(read, PEERING_MESSAGES_PER_SECOND * 11 - 1, 'a burst of one second, then the rate');
  t.equal(right.drops['peering-rate-limited'], 10_000 - read);
  const other = datagram('100.64.0.3:2680', '100.64.0.2:2680');
  t.ok(right.read(10, other, instantAt(10_000)).ok);
});

await t.test('packets of hosts behind a peer do not use up its share', async (t) => {
  const [, right] = pair(['100.64.0.1'], ['100.64.0.2']);
  for (let i = 0; i < 100; i++) right.read(9, datagram('10.1.0.5:1', '100.64.0.2:2680'), NOW);
  t.ok(right.read(9, datagram('100.64.0.1:2680', '100.64.0.2:2680'), NOW).ok);
});

await t.test('no packet is an exception', async (t) => {
  const [, right] = pair(['100.64.0.1'], ['100.64.0.2']);
  const genuine = datagram('100.64.0.1:2680', '100.64.0.2:2680');
  let now = 0;
  const later = () => instantAt((now += 1000));
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(), fc.nat(255), (bytes, at, byte) => {
      right.read(9, bytes, later());
      right.read(9, genuine.with(at % genuine.length, byte), later());
      right.read(9, genuine.subarray(0, at % genuine.length), later());
    }),
  );
  t.ok(sum(right) > 100);
});

/** Two daemons that know each other as peer 7 and 9. */
function pair(left: readonly string[], right: readonly string[]): readonly [Peering, Peering] {
  const [a, b] = [new Peering(), new Peering()];
  a.setOwnAddresses(left.map(ip));
  a.setPeer(7, right.map(ip));
  b.setOwnAddresses(right.map(ip));
  b.setPeer(9, left.map(ip));
  return [a, b];
}

function datagram(from: string, to: string, payload = encodePeering(GOODBYE)): Uint8Array {
  return buildUdpPacket({ source: address(from), destination: address(to), payload });
}

function sum({ drops }: Peering): number {
  return Object.values(drops).reduce((total, count) => total + count, 0);
}

function ip(text: string): IpAddress {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(parsed.why);
  return parsed.value;
}

function address(text: string): SocketAddress {
  const parsed = parseSocketAddress(text);
  if (!parsed.ok) throw new Error(parsed.why);
  return parsed.value;
}

function assignedIps(domain: string): PeeringMessage {
  return { type: 'assigned-ips', resource: 'crm', domain, proxyIps: [ip('100.96.0.1')] };
}
