import net from 'node:net';
import fc from 'fast-check';
import t from 'tap';
import {
  ipAddressBytes,
  ipAddressFromBytes,
  ipFamily,
  parseIpAddress,
} from '../../../core/net/ip-address.ts';
import {
  formatIpPrefix,
  parseInterfaceAddress,
  parseIpPrefix,
  prefixContains,
  type IpPrefix,
} from '../../../core/net/ip-prefix.ts';
import {
  decodeSockaddr,
  encodeSockaddr,
  parseSocketAddress,
  socketAddress,
  socketAddressIp,
  socketAddressPort,
} from '../../../core/net/socket-address.ts';

await t.test('an address is canonical however it was written', async (t) => {
  const cases: Record<string, string> = {
    '192.0.2.1': '192.0.2.1',
    '0.0.0.0': '0.0.0.0',
    '::': '::',
    '2001:DB8:0:0:0:0:0:1': '2001:db8::1',
    '2001:0db8::0001': '2001:db8::1',
    // RFC 5952 §4.2.2 and §4.2.3: one zero group stays, the first of equal runs shrinks.
    '2001:db8:0:1:1:1:1:1': '2001:db8:0:1:1:1:1:1',
    '2001:db8:0:0:1:0:0:1': '2001:db8::1:0:0:1',
    '2001:0:0:1:0:0:0:1': '2001:0:0:1::1',
    '1:2:3:4:5:6:7::': '1:2:3:4:5:6:7:0',
    '::ffff:192.0.2.1': '::ffff:c000:201',
    '64:ff9b::192.0.2.33': '64:ff9b::c000:221',
    '::1.2.3.4': '::102:304',
    '1:2:3:4:5:6:1.2.3.4': '1:2:3:4:5:6:102:304',
  };
  for (const [text, canonical] of Object.entries(cases)) {
    t.same(parseIpAddress(text), { ok: true, value: canonical }, text);
  }
});

await t.test('what is not exactly an address is refused', async (t) => {
  const refused = [
    '', ' ', '1', '127.1', '2130706433', '0x7f.0.0.1', '010.0.0.1', '10.0.0.01', '256.0.0.1', '1.2.3',
    '1.2.3.4.5', '1.2.3.4 ', ' 1.2.3.4', '1.2.3.4/32', '1.2.3.-4', '+1.2.3.4', '1.2.3.4\n', '١.2.3.4',
    ':', ':::', '1::2::3', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9', '1:2:3:4:5:6:7:8::', '::1%eth0', '::1%1',
    'fe80::1%', '12345::', '::g', '[::1]', '::ffff:010.0.0.1', '::ffff:1.2.3', '::ffff:0x1.2.3.4',
    '::1.2.3.4:5', '1.2.3.4::', '1:2:3:4:5:6:7:1.2.3.4', '2001:db8', 'example.net', ':1', '1:', '::1\n',
  ]; // prettier-ignore
  for (const text of refused) {
    t.same(parseIpAddress(text), { ok: false, why: 'not-an-ip-address' }, JSON.stringify(text));
  }
});

await t.test('parsing agrees with the operating system on random text', async (t) => {
  const character = fc.constantFrom(...'0011223789abfF::::....'.split(''));
  fc.assert(
    fc.property(fc.string({ unit: character, maxLength: 24 }), (text) => {
      return parseIpAddress(text).ok === net.isIP(text) > 0;
    }),
    { numRuns: 20_000 },
  );
  const address = fc.oneof(fc.ipV4(), fc.ipV6());
  fc.assert(fc.property(address, (text) => parseIpAddress(text).ok === net.isIP(text) > 0));
  t.pass();
});

await t.test('bytes and text convert into each other', async (t) => {
  t.same(ipAddressBytes(ip('192.0.2.1')), Uint8Array.of(192, 0, 2, 1));
  t.equal(ipAddressFromBytes(Uint8Array.of(0, 0, 0, 0)), '0.0.0.0');
  t.same([ipFamily(ip('::ffff:1.2.3.4')), ipFamily(ip('1.2.3.4'))], [6, 4]);
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
    fc.uint8Array({ minLength: 16, maxLength: 16, max: 1 }),
  );
  fc.assert(
    fc.property(bytes, (b) => {
      const address = ipAddressFromBytes(b);
      const parsed = parseIpAddress(address);
      return (
        parsed.ok && parsed.value === address && Buffer.from(b).equals(ipAddressBytes(address))
      );
    }),
  );
});

await t.test('a prefix loses its host bits, an interface address keeps them', async (t) => {
  const parse = (text: string): string => formatted(parseIpPrefix(text));
  t.equal(parse('192.0.2.7/24'), '192.0.2.0/24');
  t.equal(parse('192.0.2.7'), '192.0.2.7/32');
  t.equal(parse('10.255.255.255/9'), '10.128.0.0/9');
  t.equal(parse('255.255.255.255/0'), '0.0.0.0/0');
  t.equal(parse('2001:db8::7'), '2001:db8::7/128');
  t.equal(parse('2001:db8:ffff::7/33'), '2001:db8:8000::/33');
  t.equal(parse('::1/0'), '::/0');
  t.equal(formatted(parseInterfaceAddress('192.0.2.7/24')), '192.0.2.7/24');
  t.equal(formatted(parseInterfaceAddress('2001:db8::7/64')), '2001:db8::7/64');
  for (const text of [
    '1.2.3.4/33',
    '::/129',
    '1.2.3.4/',
    '1.2.3.4/08',
    '1.2.3.4/-1',
    '/8',
    '1.2.3.4/8/8',
    '1.2.3.4/ 8',
    '1.2.3.4/1e1',
    '::/999',
  ]) {
    t.equal(parse(text), 'not-an-ip-prefix', text);
    t.equal(formatted(parseInterfaceAddress(text)), 'not-an-interface-address', text);
  }
});

await t.test('containment agrees with the bits', async (t) => {
  t.equal(prefixContains(prefix('10.0.0.0/8'), ip('10.1.2.3')), true);
  t.equal(prefixContains(prefix('10.0.0.0/8'), ip('11.0.0.0')), false);
  t.equal(prefixContains(prefix('0.0.0.0/0'), ip('::1')), false);
  t.equal(prefixContains(prefix('::/0'), ip('::1')), true);

  const small = fc.record({ byte: fc.nat(255), length: fc.nat(8) });
  fc.assert(
    fc.property(small, small, (a, b) => {
      const holds = (p: typeof a, byte: number): boolean =>
        p.byte >> (8 - p.length) === byte >> (8 - p.length);
      const text = (p: typeof a): IpPrefix => prefix(`10.0.0.${p.byte}/${24 + p.length}`);
      return prefixContains(text(a), ip(`10.0.0.${b.byte}`)) === holds(a, b.byte);
    }),
  );
});

await t.test('a socket address is canonical, with brackets for IPv6 only', async (t) => {
  const parse = (text: string): string => {
    const parsed = parseSocketAddress(text);
    return parsed.ok ? parsed.value : parsed.why;
  };
  t.equal(parse('192.0.2.1:51820'), '192.0.2.1:51820');
  t.equal(parse('[2001:DB8::0:1]:51820'), '[2001:db8::1]:51820');
  t.equal(parse('0.0.0.0:0'), '0.0.0.0:0');
  t.equal(parse('[::]:65535'), '[::]:65535');
  const refused = [
    '',
    '192.0.2.1',
    '192.0.2.1:',
    ':53',
    '192.0.2.1:65536',
    '192.0.2.1:053',
    '192.0.2.1:+5',
    '[192.0.2.1]:53',
    '2001:db8::1:53',
    '[::1]',
    '[::1]53',
    '[::1%eth0]:53',
    'example.net:53',
    '[]:53',
    '192.0.2.1:53\n',
  ];
  for (const text of refused) t.equal(parse(text), 'not-a-socket-address', JSON.stringify(text));
  const v6 = socketAddress(ip('2001:db8::1'), 53);
  t.same([socketAddressIp(v6), socketAddressPort(v6)], ['2001:db8::1', 53]);
  const v4 = socketAddress(ip('192.0.2.1'), 65_535);
  t.same([socketAddressIp(v4), socketAddressPort(v4)], ['192.0.2.1', 65_535]);
});

await t.test('sockaddr: the bytes of Linux, read back', async (t) => {
  const out = new Uint8Array(40).fill(0xee);
  t.equal(encodeSockaddr(socketAddress(ip('192.0.2.1'), 51_820), out, 2), 16);
  t.equal(
    Buffer.from(out.subarray(0, 20)).toString('hex'),
    `eeee0200ca6cc0000201${'0'.repeat(16)}eeee`,
  );
  t.equal(decodeSockaddr(out, 2), '192.0.2.1:51820');
  t.equal(encodeSockaddr(socketAddress(ip('2001:db8::1'), 443), out, 0), 28);
  t.equal(
    Buffer.from(out.subarray(0, 28)).toString('hex'),
    '0a0001bb0000000020010db800000000000000000000000100000000',
  );
  t.equal(decodeSockaddr(out, 0), '[2001:db8::1]:443');
});

await t.test('sockaddr: a mapped address is IPv4, anything else is refused', async (t) => {
  const out = new Uint8Array(28);
  encodeSockaddr(socketAddress(ip('::ffff:192.0.2.1'), 53), out, 0);
  t.equal(decodeSockaddr(out, 0), '192.0.2.1:53');
  t.equal(decodeSockaddr(out.subarray(0, 27), 0), undefined);
  t.equal(decodeSockaddr(out, 1), undefined);
  t.equal(decodeSockaddr(new Uint8Array(28), 0), undefined);
  t.equal(decodeSockaddr(new Uint8Array(0), 0), undefined);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.nat(50), (bytes, offset) => {
      const address = decodeSockaddr(bytes, offset);
      return address === undefined || parseSocketAddress(address).ok;
    }),
  );
});

function ip(text: string) {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}

function prefix(text: string): IpPrefix {
  const parsed = parseIpPrefix(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}

function formatted(
  parsed: ReturnType<typeof parseIpPrefix | typeof parseInterfaceAddress>,
): string {
  return parsed.ok ? formatIpPrefix(parsed.value) : parsed.why;
}
