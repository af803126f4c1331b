import t from 'tap';
import type { SocketAddress } from '../../core/net/socket-address.ts';
import { instantAt } from '../../core/sansio/instant.ts';
import type { Dependence } from './filter.ts';
import { Nat, NAT_PRESETS, type NatBehaviour } from './nat.ts';
import { SeededRandom } from './seeded-random.ts';
import { address } from './site.ts';

const INSIDE = endpoint('192.168.1.2:5000');
const REMOTE = endpoint('203.0.113.1:1000');
const OTHER_PORT = endpoint('203.0.113.1:2000');
const OTHER_ADDRESS = endpoint('203.0.113.2:1000');
const NOW = instantAt(0);

const ALL: readonly Dependence[] = [
  'endpoint-independent',
  'address-dependent',
  'address-and-port-dependent',
];

await t.test('RFC 4787 §4.1: a mapping is used again for what it does not depend on', async (t) => {
  const expected = {
    'endpoint-independent': { port: true, address: true },
    'address-dependent': { port: true, address: false },
    'address-and-port-dependent': { port: false, address: false },
  };
  for (const mapping of ALL) {
    const nat = natOf({ mapping });
    const first = nat.outbound(INSIDE, REMOTE, NOW);
    t.equal(nat.outbound(INSIDE, REMOTE, NOW), first, mapping);
    t.equal(nat.outbound(INSIDE, OTHER_PORT, NOW) === first, expected[mapping].port, mapping);
    t.equal(nat.outbound(INSIDE, OTHER_ADDRESS, NOW) === first, expected[mapping].address, mapping);
  }
});

await t.test(
  'RFC 4787 §5: a filter lets in whom it saw addressed, as far as it looks',
  async (t) => {
    const expected = {
      'endpoint-independent': { port: true, address: true },
      'address-dependent': { port: true, address: false },
      'address-and-port-dependent': { port: false, address: false },
    };
    for (const filtering of ALL) {
      const nat = natOf({ filtering });
      const external = nat.outbound(INSIDE, REMOTE, NOW)!;
      const lets = (from: SocketAddress) => nat.inbound(from, external, NOW) === INSIDE;
      t.ok(lets(REMOTE), filtering);
      t.equal(lets(OTHER_PORT), expected[filtering].port, filtering);
      t.equal(lets(OTHER_ADDRESS), expected[filtering].address, filtering);
    }
  },
);

await t.test('nobody gets in where nothing went out', async (t) => {
  t.equal(natOf({}).inbound(REMOTE, endpoint('198.51.100.1:5000'), NOW), undefined);
});

await t.test('RFC 4787 §4.2.1: ports are preserved, counted up or drawn', async (t) => {
  const second = endpoint('192.168.1.3:5000');
  const portsOf = (ports: NatBehaviour['ports']) => {
    const nat = natOf({ ports });
    return [nat.outbound(INSIDE, REMOTE, NOW), nat.outbound(second, REMOTE, NOW)];
  };
  t.same(portsOf('preservation'), ['198.51.100.1:5000', '198.51.100.1:5001']);
  t.same(portsOf('sequential'), ['198.51.100.1:1024', '198.51.100.1:1025']);
  const drawn = portsOf('random');
  t.not(drawn[0], drawn[1]);
  t.notMatch(drawn.join(), /:500[01]/);
});

await t.test(
  'RFC 4787 REQ-6: outbound packets refresh, inbound ones where the box does so',
  async (t) => {
    for (const inboundRefresh of [true, false]) {
      const nat = natOf({ inboundRefresh, timeout: 100 });
      const external = nat.outbound(INSIDE, REMOTE, NOW)!;
      t.equal(nat.outbound(INSIDE, REMOTE, instantAt(90)), external);
      t.equal(nat.inbound(REMOTE, external, instantAt(180)), INSIDE);
      const late = nat.inbound(REMOTE, external, instantAt(270));
      t.equal(late, inboundRefresh ? INSIDE : undefined);
      t.equal(nat.inbound(REMOTE, external, instantAt(370)), undefined, 'silence ends it');
    }
  },
);

await t.test('a port whose mapping ended serves another host', async (t) => {
  const nat = natOf({ timeout: 100 });
  const external = nat.outbound(INSIDE, REMOTE, NOW)!;
  const second = endpoint('192.168.1.3:5000');
  t.equal(nat.outbound(second, REMOTE, instantAt(100)), external);
  t.equal(nat.inbound(REMOTE, external, instantAt(100)), second);
  t.not(nat.outbound(INSIDE, REMOTE, instantAt(100)), external);
});

await t.test('rebinding forgets mappings, not forwarded ports', async (t) => {
  const nat = natOf({});
  const external = nat.outbound(INSIDE, REMOTE, NOW)!;
  nat.forward(443, endpoint('192.168.1.9:8443'));
  nat.rebind();
  t.equal(nat.inbound(REMOTE, external, NOW), undefined);
  t.equal(nat.inbound(REMOTE, endpoint('198.51.100.1:443'), NOW), '192.168.1.9:8443');
  const answer = nat.outbound(endpoint('192.168.1.9:8443'), REMOTE, NOW);
  t.equal(answer, '198.51.100.1:443', 'and what answers from there is mapped back');
});

await t.test('another external address takes the mappings away', async (t) => {
  const nat = natOf({});
  nat.outbound(INSIDE, REMOTE, NOW);
  nat.external = address('198.51.100.7');
  t.equal(nat.inbound(REMOTE, endpoint('198.51.100.7:5000'), NOW), undefined);
  t.equal(nat.outbound(INSIDE, REMOTE, NOW), '198.51.100.7:5000');
});

await t.test('a network that blocks UDP passes none', async (t) => {
  const nat = natOf(NAT_PRESETS.udpBlocked);
  t.equal(nat.outbound(INSIDE, REMOTE, NOW), undefined);
});

function natOf(behaviour: Partial<NatBehaviour>): Nat {
  const whole = { ...NAT_PRESETS.fullCone, ...behaviour };
  return new Nat(whole, address('198.51.100.1'), new SeededRandom(1));
}

function endpoint(text: string): SocketAddress {
  return text as SocketAddress;
}
