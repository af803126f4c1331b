import fc from 'fast-check';
import t from 'tap';
import { parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';
import { parseSocketAddress, type SocketAddress } from '../../../core/net/socket-address.ts';
import { decodeHex, encodeHex } from '../../../core/sansio/hex.ts';
import { readUint16, writeUint16 } from '../../../core/packet/big-endian.ts';
import {
  addToSum,
  adjustChecksum,
  adjustUdpChecksum,
  checksumDelta,
  checksumOfSum,
  isTransportChecksumValid,
  writeIpv4HeaderChecksum,
  writeTransportChecksum,
} from '../../../core/packet/checksum.ts';
import { flowKey, readFiveTuple, reverseFiveTuple } from '../../../core/packet/five-tuple.ts';
import { buildIcmpError, readIcmpError, type IcmpError } from '../../../core/packet/icmp.ts';
import { IpPacket } from '../../../core/packet/ip-packet.ts';
import { clampMss } from '../../../core/packet/mss.ts';
import { buildUdpPacket, readUdp } from '../../../core/packet/udp.ts';

/** Wikipedia's well-known example of an IPv4 header: UDP, 115 bytes, 192.168.0.1 to 192.168.0.199. */
const WELL_KNOWN_HEADER = '4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7';

/** Captured with tcpdump on a veth pair of Linux, checksum offload switched off. */
const CAPTURED = {
  icmp4: '4500002c1bf7400040019ad6c0000201c00002020800646046740001503b006b00000000f683060000000000',
  icmp6:
    '600c02bf00183a4020010db800000000000000000000000120010db800000000000000000000000280008c8546750001503b006b00000000fa95060000000000',
  tcp4: '4500003c42b6400040067402c0000201c0000202db16005018c5e67600000000a002faf068630000020405b40402080a95fef003000000000103030a',
  tcp6: '600d87fa0028064020010db800000000000000000000000120010db8000000000000000000000002b2040050823cbe6300000000a002fd205f7d0000020405a00402080a9c030106000000000103030a',
  udp6: '6001ec2c000e114020010db800000000000000000000000120010db8000000000000000000000002e4760035000e7bd568656c6c6f0a',
};

await t.test('an IPv4 packet is read where it lies', async (t) => {
  const packet = read(
    `ffff 4510 0020 0000 4000 4006 0000 c0000201 c6336407 ${'11'.repeat(12)} eeee`,
    2,
  );
  t.match(packet, {
    family: 4,
    totalLength: 32,
    protocol: 6,
    payloadOffset: 22,
    payloadLength: 12,
    isFragment: false,
    source: '192.0.2.1',
    destination: '198.51.100.7',
  });
});

await t.test('IPv4 options move the payload, fragments are told apart', async (t) => {
  const withOptions = read(
    `4600 001c 0000 0000 4011 0000 c0000201 c6336407 01010100 ${'22'.repeat(4)}`,
  );
  t.match(withOptions, { payloadOffset: 24, payloadLength: 4 });
  const fragment = (field: string): IpPacket =>
    read(`4500 0018 0000 ${field} 4011 0000 c0000201 c6336407 11223344`);
  t.match(fragment('2000'), { isFragment: true, isFirstOrWhole: true, hasMoreFragments: true });
  t.match(fragment('2001'), { isFragment: true, isFirstOrWhole: false, fragmentOffset: 8 });
  t.match(fragment('00b9'), { isFragment: true, isFirstOrWhole: false, hasMoreFragments: false });
  t.match(fragment('4000'), { isFragment: false });
});

await t.test('IPv6 extension headers are walked to the transport protocol', async (t) => {
  const packet = read(
    ipv6(
      0,
      `3c00 000000000000 2b01 ${'00'.repeat(14)} 3302 ${'00'.repeat(22)} 1102 ${'00'.repeat(14)} 0035003500081234`,
    ),
  );
  // Hop-by-hop, destination options, routing, authentication: its length counts in 4 bytes.
  t.match(packet, {
    family: 6,
    protocol: 17,
    payloadOffset: 40 + 8 + 16 + 24 + 16,
    payloadLength: 8,
  });
  t.match(packet, { source: '2001:db8::1', destination: '2001:db8::2' });
  t.match(read(ipv6(59, '')), { protocol: 59, payloadLength: 0 });
});

await t.test('IPv6 fragments: the first is walked on, behind a later one is payload', async (t) => {
  t.match(read(ipv6(44, '3c00 0001 00000001 1100 000000000000 0035003500080000')), {
    protocol: 17,
    isFragment: true,
    isFirstOrWhole: true,
    payloadOffset: 56,
  });
  t.match(read(ipv6(44, '3c00 0010 00000001 ffff ffff ffff ffff')), {
    protocol: 60,
    isFirstOrWhole: false,
    fragmentOffset: 16,
    payloadOffset: 48,
  });
  t.match(read(ipv6(44, '1100 0000 00000001 0035003500080000')), {
    isFragment: false,
    protocol: 17,
  });
});

await t.test('malformed packets are refused with the reason', async (t) => {
  const refusal = (hex: string): string | undefined => {
    const bytes = fromHex(hex);
    return new IpPacket().read(bytes, 0, bytes.length);
  };
  t.equal(refusal(''), 'truncated-ip');
  t.equal(refusal('50'), 'not-ip');
  t.equal(refusal('45'), 'truncated-ip');
  t.equal(refusal('4400 0014 0000 0000 4011 0000 c0000201 c6336407'), 'bad-ip-header-length');
  t.equal(refusal('4600 0014 0000 0000 4011 0000 c0000201 c6336407'), 'bad-ip-header-length');
  t.equal(refusal('4500 0015 0000 0000 4011 0000 c0000201 c6336407'), 'truncated-ip');
  t.equal(refusal('4f00 003c 0000 0000 4011 0000 c0000201 c6336407'), 'truncated-ip');
  t.equal(refusal(ipv6(17, '').slice(0, 78)), 'truncated-ip');
  t.equal(refusal(ipv6(0, '1100 0000')), 'bad-ip-header-length');
  t.equal(refusal(ipv6(0, '1101 0000 00000000')), 'bad-ip-header-length');
  t.equal(refusal(ipv6(0, '0000 000000000000'.repeat(9))), 'too-many-extension-headers');
  t.equal(new IpPacket().read(fromHex(WELL_KNOWN_HEADER), 0, 19), 'truncated-ip');
});

await t.test('checksum: the example of RFC 1071 §3', async (t) => {
  const bytes = fromHex('0001 f203 f4f5 f6f7');
  t.equal(addToSum(0, bytes, 0, 8), 0x2ddf0);
  t.equal(checksumOfSum(0x2ddf0), 0xffff - 0xddf2);
  t.equal(addToSum(0, fromHex('ff 0102 03'), 1, 3), 0x0102 + 0x0300, 'odd length and offset');
});

await t.test('checksum: the incremental update of RFC 1624 §4 yields 0000, not ffff', async (t) => {
  const delta = checksumDelta(fromHex('5555'), fromHex('3285'));
  t.equal(adjustChecksum(0xdd2f, delta), 0x0000);
  t.equal(adjustUdpChecksum(0xdd2f, delta), 0xffff, 'UDP has no zero');
  t.equal(adjustUdpChecksum(0, delta), 0, 'and none stays none');
});

await t.test('checksum: of IPv4 headers', async (t) => {
  const bytes = fromHex(WELL_KNOWN_HEADER);
  t.equal(isIpv4HeaderValid(bytes), true);
  writeUint16(bytes, 10, 0x1234);
  t.equal(isIpv4HeaderValid(bytes), false);
  writeIpv4HeaderChecksum(bytes, 0);
  t.equal(readUint16(bytes, 10), 0xb861);
});

await t.test('checksum: incremental and full agree for any rewritten address', async (t) => {
  const address = fc.uint8Array({ minLength: 4, maxLength: 4 });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), address, (payload, source) => {
      const packet = udpPacket('192.0.2.1:1000', '192.0.2.2:53', payload);
      const { bytes, payloadOffset } = packet;
      const delta = checksumDelta(bytes.subarray(12, 16), source);
      const adjusted = adjustUdpChecksum(readUint16(bytes, payloadOffset + 6), delta);
      bytes.set(source, 12);
      writeTransportChecksum(packet);
      return adjusted === readUint16(bytes, payloadOffset + 6) && isTransportChecksumValid(packet);
    }),
  );
  t.pass();
});

await t.test(
  'checksum: of captured TCP, ICMP and ICMPv6 packets, and any flipped bit shows',
  async (t) => {
    const captured = [CAPTURED.tcp4, CAPTURED.tcp6, CAPTURED.icmp4, CAPTURED.icmp6, CAPTURED.udp6];
    for (const hex of captured) {
      const packet = read(hex);
      t.equal(isTransportChecksumValid(packet), true, hex);
      const original = packet.bytes.slice();
      for (let at = packet.payloadOffset; at < packet.bytes.length; at++) {
        packet.bytes[at] = (packet.bytes[at] ?? 0) ^ 0x10;
        if (isTransportChecksumValid(packet)) t.fail(`flipped bit in byte ${at} of ${hex}`);
        packet.bytes[at] = original[at] ?? 0;
      }
      const field =
        packet.payloadOffset + (packet.protocol === 6 ? 16 : packet.protocol === 17 ? 6 : 2);
      writeUint16(packet.bytes, field, 0xaaaa);
      writeTransportChecksum(packet);
      t.same(packet.bytes, original);
    }
  },
);

await t.test('checksum: UDP may go without over IPv4 and not over IPv6', async (t) => {
  const v4 = udpPacket('192.0.2.1:1', '192.0.2.2:2', Uint8Array.of(1, 2, 3));
  writeUint16(v4.bytes, v4.payloadOffset + 6, 0);
  t.equal(isTransportChecksumValid(v4), true);
  const v6 = udpPacket('[2001:db8::1]:1', '[2001:db8::2]:2', Uint8Array.of(1, 2, 3));
  t.equal(isTransportChecksumValid(v6), true);
  writeUint16(v6.bytes, v6.payloadOffset + 6, 0);
  t.equal(isTransportChecksumValid(v6), false);
});

await t.test('five-tuple: ports, echo identifiers, none', async (t) => {
  const udp = readFiveTuple(udpPacket('192.0.2.1:1000', '192.0.2.2:53', new Uint8Array(0)));
  t.same(udp, {
    protocol: 17,
    source: '192.0.2.1',
    sourcePort: 1000,
    destination: '192.0.2.2',
    destinationPort: 53,
  });
  if (udp === undefined) throw new Error('no tuple');
  t.equal(flowKey(udp), '17 192.0.2.1 1000 192.0.2.2 53');
  t.equal(flowKey(reverseFiveTuple(udp)), '17 192.0.2.2 53 192.0.2.1 1000');
  t.match(readFiveTuple(read(CAPTURED.icmp4)), {
    protocol: 1,
    sourcePort: 0x4674,
    destinationPort: 0x4674,
  });
  t.match(readFiveTuple(read(CAPTURED.icmp6)), {
    protocol: 58,
    sourcePort: 0x4675,
    destinationPort: 0x4675,
  });
  t.match(readFiveTuple(read(ipv6(50, '0011223344556677'))), { protocol: 50, sourcePort: 0 });
  const later = read('4500 0018 0000 0001 4011 0000 c0000201 c6336407 11223344');
  t.equal(readFiveTuple(later), undefined, 'a later fragment has no ports');
  const cutOff = read('4500 0017 0000 0000 4011 0000 c0000201 c6336407 112233');
  t.equal(readFiveTuple(cutOff), undefined);
});

await t.test('ICMP errors: type, code and MTU in both families', async (t) => {
  const v4 = udpPacket('192.0.2.1:1000', '198.51.100.7:53', new Uint8Array(100).fill(7));
  const v6 = udpPacket('[2001:db8::1]:1000', '[2001:db8::2]:53', new Uint8Array(100).fill(7));
  const cases: [IcmpError, string, string][] = [
    [{ type: 'packet-too-big', mtu: 1408 }, '0304 ???? 0000 0580', '0200 ???? 0000 0580'],
    [{ type: 'administratively-prohibited' }, '030d ???? 0000 0000', '0101 ???? 0000 0000'],
    [{ type: 'host-unreachable' }, '0301 ???? 0000 0000', '0103 ???? 0000 0000'],
  ];
  for (const [error, icmpv4, icmpv6] of cases) {
    for (const [offending, expected, source] of [
      [v4, icmpv4, '100.64.0.1'],
      [v6, icmpv6, 'fd00::1'],
    ] as const) {
      const packet = icmpError(error, offending, source);
      t.match(packet, { source, destination: offending.source, isFragment: false });
      t.equal(packet.protocol, offending.family === 4 ? 1 : 58);
      if (packet.family === 4) t.equal(isIpv4HeaderValid(packet.bytes), true);
      t.equal(isTransportChecksumValid(packet), true);
      const header = encodeHex(
        packet.bytes.subarray(packet.payloadOffset, packet.payloadOffset + 8),
      );
      t.equal(header.slice(0, 4) + header.slice(8), expected.replace(/[ ?]/g, ''));
      const received = readIcmpError(packet);
      t.same(received?.error, error);
      const quoted = new IpPacket();
      quoted.readQuoted(packet.bytes, received?.quotedOffset ?? 0, received?.quotedLength ?? 0);
      t.same(readFiveTuple(quoted), readFiveTuple(offending));
    }
  }
});

await t.test(
  'ICMP errors: quote as much as the RFCs allow, and IPv6 never reports less than 1280',
  async (t) => {
    const v4 = udpPacket('192.0.2.1:1000', '198.51.100.7:53', new Uint8Array(1400));
    const v6 = udpPacket('[2001:db8::1]:1000', '[2001:db8::2]:53', new Uint8Array(1400));
    t.equal(icmpError({ type: 'packet-too-big', mtu: 1000 }, v4, '100.64.0.1').totalLength, 576);
    const tooBig = icmpError({ type: 'packet-too-big', mtu: 1000 }, v6, 'fd00::1');
    t.equal(tooBig.totalLength, 1280);
    t.same(readIcmpError(tooBig)?.error, { type: 'packet-too-big', mtu: 1280 });
    const quoted = new IpPacket();
    t.equal(quoted.read(tooBig.bytes, 48, 1232), 'truncated-ip');
    t.equal(quoted.readQuoted(tooBig.bytes, 48, 1232), undefined, 'a quote may be cut off');
  },
);

await t.test('ICMP errors: RFC 1122 §3.2.2, RFC 4443 §2.4(e): never about these', async (t) => {
  const why = (offending: IpPacket): string => {
    const source = offending.family === 4 ? '100.64.0.1' : 'fd00::1';
    const outcome = buildIcmpError({ type: 'host-unreachable' }, offending, ip(source));
    return outcome.ok ? 'answered' : outcome.why;
  };
  const v4 = (source: string, destination: string): IpPacket =>
    udpPacket(`${source}:1`, `${destination}:2`, new Uint8Array(8));
  t.equal(why(v4('192.0.2.1', '192.0.2.2')), 'answered');
  t.equal(why(v4('192.0.2.1', '224.0.0.251')), 'group-destination');
  t.equal(why(v4('192.0.2.1', '255.255.255.255')), 'group-destination');
  for (const source of ['0.0.0.0', '127.0.0.1', '239.1.1.1', '255.255.255.255']) {
    t.equal(why(v4(source, '192.0.2.2')), 'no-single-source', source);
  }
  t.equal(why(v4('[2001:db8::1]', '[ff02::fb]')), 'group-destination');
  for (const source of ['[::]', '[::1]', '[ff02::1]']) {
    t.equal(why(v4(source, '[2001:db8::1]')), 'no-single-source', source);
  }
  t.equal(why(v4('[::2]', '[2001:db8::1]')), 'answered');
  t.equal(
    why(read('4500 0018 0000 0001 4011 0000 c0000201 c6336407 11223344')),
    'not-first-fragment',
  );
  t.equal(why(read(CAPTURED.icmp4)), 'answered', 'an echo request');
  for (const type of ['03', '04', '05', '0b', '0c']) {
    t.equal(
      why(read(`4500 001c 0000 0000 4001 0000 c0000201 c6336407 ${type}00 0000 00000000`)),
      'icmp-error',
    );
  }
  t.equal(why(read(CAPTURED.icmp6)), 'answered', 'an echo request');
  for (const type of ['01', '02', '03', '04', '7f', '89']) {
    t.equal(why(read(ipv6(58, `${type}00 0000 00000000`))), 'icmp-error', type);
  }
  t.equal(why(read(ipv6(58, ''))), 'malformed', 'its type is not there');
  const about4 = v4('192.0.2.1', '192.0.2.2');
  t.match(buildIcmpError({ type: 'host-unreachable' }, about4, ip('fd00::1')), {
    why: 'other-family',
  });
});

await t.test('MSS: lowered to the MTU in both families, the checksum holds', async (t) => {
  for (const [hex, most] of [
    [CAPTURED.tcp4, 1368],
    [CAPTURED.tcp6, 1348],
  ] as const) {
    const packet = read(hex);
    t.equal(clampMss(packet, 1408), true);
    t.equal(readUint16(packet.bytes, packet.payloadOffset + 22), most);
    t.equal(isTransportChecksumValid(packet), true);
    t.equal(clampMss(packet, 1408), false, 'it fits already');
    t.equal(clampMss(packet, 1500), false, 'and is never raised');
    t.equal(readUint16(packet.bytes, packet.payloadOffset + 22), most);
  }
});

await t.test('MSS: an option at an odd place', async (t) => {
  const packet = read(
    `4500 0030 0000 4000 4006 0000 c0000201 c6336407 04d2 0050 00000000 00000000 7002 ffff 0000 0000 01 0204 05b4 010101`,
  );
  writeTransportChecksum(packet);
  t.equal(clampMss(packet, 1280), true);
  t.equal(readUint16(packet.bytes, 43), 1240);
  t.equal(isTransportChecksumValid(packet), true);
});

await t.test('MSS: only of a SYN, and only where the option is well-formed', async (t) => {
  const tcp = (flags: string, dataOffset: string, options: string): boolean => {
    const hex = `4500 0030 0000 4000 4006 0000 c0000201 c6336407 04d2 0050 00000000 00000000 ${dataOffset}0${flags} ffff 0000 0000 ${options}`;
    const packet = read(hex);
    const before = packet.bytes.slice();
    const isClamped = clampMss(packet, 1280);
    if (!isClamped) t.same(packet.bytes, before);
    return isClamped;
  };
  t.equal(tcp('02', '7', '020405b4 00000000'), true);
  t.equal(tcp('12', '7', '020405b4 00000000'), true, 'SYN, ACK');
  t.equal(tcp('10', '7', '020405b4 00000000'), false, 'ACK');
  t.equal(tcp('02', '5', '020405b4 00000000'), false, 'the option is data');
  t.equal(tcp('02', '8', '020405b4 00000000'), false, 'header longer than the packet');
  t.equal(tcp('02', '7', '020305b4 00000000'), false, 'wrong length');
  t.equal(tcp('02', '7', '03000000 020405b4'), false, 'an option of no length');
  t.equal(tcp('02', '7', '03ff0000 020405b4'), false, 'an option that is too long');
  t.equal(tcp('02', '7', '00000000 020405b4'), false, 'behind the end of the options');
  t.equal(tcp('02', '7', '01010101 01010204'), false, 'cut off');
  t.equal(tcp('02', '7', '03030701 020405b4'), true, 'behind others');
  t.equal(tcp('02', '7', '02040000 00000000'), false, 'zero is small enough');
});

await t.test('UDP: what is built is read back', async (t) => {
  const sockets = fc.constantFrom(
    ['100.64.0.1:2680', '100.64.0.2:2680'],
    ['[fd00::1]:2680', '[fd00::2]:65535'],
  );
  fc.assert(
    fc.property(
      sockets,
      fc.uint8Array({ maxLength: 1500 }),
      ([source = '', destination = ''], payload) => {
        const packet = udpPacket(source, destination, payload);
        const outcome = readUdp(packet);
        const isIpv4Valid = packet.family === 6 || isIpv4HeaderValid(packet.bytes);
        return (
          isIpv4Valid &&
          outcome.ok &&
          outcome.value.source === source &&
          outcome.value.destination === destination &&
          Buffer.from(payload).equals(outcome.value.payload)
        );
      },
    ),
  );
  t.throws(() => udpPacket('192.0.2.1:1', '[::1]:1', new Uint8Array(0)), { name: 'BugError' });
  t.throws(() => udpPacket('192.0.2.1:1', '192.0.2.2:1', new Uint8Array(65_508)), {
    name: 'BugError',
  });
});

await t.test('UDP: malformed datagrams are refused with the reason', async (t) => {
  const why = (change: (bytes: Uint8Array) => void): string => {
    const { bytes } = udpPacket('192.0.2.1:1', '192.0.2.2:2', Uint8Array.of(1, 2, 3, 4));
    change(bytes);
    const packet = new IpPacket();
    const outcome = packet.read(bytes, 0, bytes.length) ?? readUdp(packet);
    return typeof outcome === 'string' || outcome.ok ? 'read' : outcome.why;
  };
  t.equal(
    why(() => undefined),
    'read',
  );
  t.equal(
    why((bytes) => (bytes[31] = 9)),
    'bad-udp-checksum',
  );
  t.equal(
    why((bytes) => writeUint16(bytes, 24, 13)),
    'truncated-udp',
  );
  t.equal(
    why((bytes) => writeUint16(bytes, 24, 7)),
    'truncated-udp',
  );
  t.equal(
    why((bytes) => writeUint16(bytes, 2, 27)),
    'truncated-udp',
  );
  t.equal(
    why((bytes) => writeUint16(bytes, 6, 0x2000)),
    'fragment',
  );
  t.equal(
    why((bytes) => (bytes[9] = 6)),
    'not-udp',
  );
  const padded = udpPacket('192.0.2.1:1', '192.0.2.2:2', Uint8Array.of(1, 2, 3, 4));
  const longer = new Uint8Array(36);
  longer.set(padded.bytes);
  longer.set([0xde, 0xad, 0xbe, 0xef], 32);
  writeUint16(longer, 2, 36);
  const packet = new IpPacket();
  packet.read(longer, 0, 36);
  t.match(
    readUdp(packet),
    { ok: true, value: { payload: Uint8Array.of(1, 2, 3, 4) } },
    'what follows is no payload',
  );
});

await t.test('random and mutated bytes never throw and never lead out of the packet', async (t) => {
  const samples = [
    ...Object.values(CAPTURED),
    ipv6(44, `3c00 0001 00000001 1100 ${'00'.repeat(14)}`),
  ].map(fromHex);
  const mutated = fc
    .tuple(
      fc.constantFrom(...samples),
      fc.array(fc.tuple(fc.nat(99), fc.nat(255)), { maxLength: 12 }),
      fc.nat(120),
    )
    .map(([sample, changes, length]) => {
      const bytes = sample.slice(0, length);
      for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
      return bytes;
    });
  const arbitrary = fc.oneof(mutated, fc.uint8Array({ maxLength: 120 }));
  let read = 0;
  fc.assert(
    fc.property(arbitrary, fc.nat(3), (bytes, offset) => {
      const packet = new IpPacket();
      for (const malformed of [
        packet.read(bytes, offset, bytes.length - offset),
        packet.readQuoted(bytes, offset, bytes.length - offset),
      ]) {
        if (malformed !== undefined) continue;
        read++;
        const end = packet.payloadOffset + packet.payloadLength;
        if (packet.payloadLength < 0 || end > bytes.length) throw new Error('out of the packet');
        readFiveTuple(packet);
        readUdp(packet);
        isTransportChecksumValid(packet);
        const error = readIcmpError(packet);
        if (error !== undefined && error.quotedOffset + error.quotedLength > end) {
          throw new Error('quote out of the packet');
        }
        buildIcmpError({ type: 'packet-too-big', mtu: 1400 }, packet, ip('192.0.2.1'));
        buildIcmpError({ type: 'host-unreachable' }, packet, ip('fd00::1'));
        const around = [bytes.slice(0, packet.offset), bytes.slice(end)];
        clampMss(packet, 1280);
        writeTransportChecksum(packet);
        if (encodeHex(bytes.slice(end)) !== encodeHex(around[1] ?? bytes))
          throw new Error('wrote behind');
        if (encodeHex(bytes.slice(0, packet.offset)) !== encodeHex(around[0] ?? bytes))
          throw new Error('wrote before');
      }
    }),
    { numRuns: 20_000 },
  );
  t.ok(read > 2000, `${read} readable packets`);
});

/** RFC 791 §3.1: the one's complement sum of the header, checksum included, is all ones. */
function isIpv4HeaderValid(bytes: Uint8Array): boolean {
  let sum = 0;
  for (let at = 0; at < ((bytes[0] ?? 0) & 15) * 4; at += 2) sum += readUint16(bytes, at);
  return (sum & 0xffff) + (sum >> 16) === 0xffff;
}

function fromHex(hex: string): Uint8Array {
  const bytes = decodeHex(hex.replaceAll(' ', ''));
  if (bytes === undefined) throw new Error(hex);
  return bytes;
}

function read(hex: string, offset = 0): IpPacket {
  const bytes = fromHex(hex);
  const packet = new IpPacket();
  const malformed = packet.read(bytes, offset, bytes.length - offset);
  if (malformed !== undefined) throw new Error(`${malformed}: ${hex}`);
  return packet;
}

/** An IPv6 packet from 2001:db8::1 to 2001:db8::2. */
function ipv6(nextHeader: number, payload: string): string {
  const length = payload.replaceAll(' ', '').length / 2;
  const words = [length.toString(16).padStart(4, '0'), nextHeader.toString(16).padStart(2, '0')];
  const address = '20010db8000000000000000000000';
  return `60000000${words.join('')}40${address}001${address}002${payload}`;
}

function udpPacket(source: string, destination: string, payload: Uint8Array): IpPacket {
  const bytes = buildUdpPacket({
    source: socket(source),
    destination: socket(destination),
    payload,
  });
  const packet = new IpPacket();
  packet.read(bytes, 0, bytes.length);
  return packet;
}

function icmpError(error: IcmpError, offending: IpPacket, source: string): IpPacket {
  const outcome = buildIcmpError(error, offending, ip(source));
  if (!outcome.ok) throw new Error(outcome.why);
  const packet = new IpPacket();
  packet.read(outcome.value, 0, outcome.value.length);
  return packet;
}

function ip(text: string): IpAddress {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}

function socket(text: string): SocketAddress {
  const parsed = parseSocketAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
