import t from 'tap';
import type { Flow } from '../../../core/fastpath/flow.ts';
import { PrefixNat, type PrefixMap } from '../../../core/nat/prefix-nat.ts';
import { parseIpPrefix, type IpPrefix } from '../../../core/net/ip-prefix.ts';
import { BugError } from '../../../core/sansio/outcome.ts';
import { udp } from '../fastpath/packets.ts';
import { addressBytes, icmpError } from './icmp-packets.ts';

const nat = new PrefixNat();
nat.setMaps([
  map('192.168.1.0/24', '10.201.0.0/24'),
  map('172.16.0.0/12', '10.208.0.0/12'),
  map('fd00:1::/48', 'fd00:a::/48'),
  map('fd00:2:0:8000::/49', 'fd00:b:0:8000::/49'),
]);

await t.test('host n of one network is host n of the other, both ways', async (t) => {
  for (const [local, mapped] of [
    ['192.168.1.0', '10.201.0.0'],
    ['192.168.1.77', '10.201.0.77'],
    ['172.31.255.254', '10.223.255.254'],
    ['fd00:1:0:1:2:3:4:5', 'fd00:a:0:1:2:3:4:5'],
    ['fd00:2:0:8001::1', 'fd00:b:0:8001::1'],
  ] as const) {
    const far = local.includes(':') ? 'fd00:ff::1' : '10.202.0.9';
    t.same(nat.outbound(flow(local, far)), { source: addressBytes(mapped) });
    t.same(nat.inbound(flow(far, mapped)), { destination: addressBytes(local) });
  }
});

await t.test('other addresses stay', async (t) => {
  t.equal(nat.outbound(flow('192.168.2.1', '10.202.0.9')), undefined);
  t.equal(nat.outbound(flow('10.202.0.9', '192.168.1.1')), undefined, 'a destination outbound');
  t.equal(nat.inbound(flow('10.202.0.9', '192.168.1.1')), undefined, 'not mapped, so not ours');
  t.equal(nat.inbound(flow('10.201.0.5', '10.202.0.9')), undefined, 'a source inbound');
  t.equal(new PrefixNat().outbound(flow('192.168.1.1', '10.202.0.9')), undefined);
});

await t.test('errors are about the packet as the other side knows it', async (t) => {
  const error = { type: 3, code: 1, rest: 0 };
  const outbound = icmpError(
    { ...error, source: '192.168.1.254', destination: '10.202.0.9' },
    udp({ source: '10.202.0.9', destination: '192.168.1.5' }),
  );
  t.same(nat.outboundError(outbound, addressBytes('192.168.1.254')), {
    ok: true,
    value: icmpError(
      { ...error, source: '10.201.0.254', destination: '10.202.0.9' },
      udp({ source: '10.202.0.9', destination: '10.201.0.5' }),
    ),
  });
  const inbound = icmpError(
    { ...error, source: '10.202.0.1', destination: '10.201.0.5' },
    udp({ source: '10.201.0.5', destination: '10.202.0.9' }),
  );
  t.same(nat.inboundError(inbound), {
    ok: true,
    value: icmpError(
      { ...error, source: '10.202.0.1', destination: '192.168.1.5' },
      udp({ source: '192.168.1.5', destination: '10.202.0.9' }),
    ),
  });
});

await t.test('the two sides of a map are of one size', async (t) => {
  t.throws(() => new PrefixNat().setMaps([map('10.0.0.0/8', '10.0.0.0/9')]), BugError);
  t.throws(() => new PrefixNat().setMaps([map('10.0.0.0/8', 'fd00::/8')]), BugError);
});

function map(local: string, mapped: string): PrefixMap {
  return { local: prefix(local), mapped: prefix(mapped) };
}

function prefix(text: string): IpPrefix {
  const parsed = parseIpPrefix(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}

function flow(source: string, destination: string): Flow {
  return {
    family: source.includes(':') ? 6 : 4,
    protocol: 6,
    source: addressBytes(source),
    destination: addressBytes(destination),
    sourcePort: 1,
    destinationPort: 2,
    isFragment: false,
  };
}
