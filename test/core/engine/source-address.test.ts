import t from 'tap';
import { socketAddress, type SocketAddress } from '../../../core/net/socket-address.ts';
import { address } from '../../sim/site.ts';
import { TwoSites } from '../../sim/two-sites.ts';

/** A router with several addresses answers from the one that was asked. */
const SECOND = 1000;
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

const FIRST = address('192.0.2.2');
const ASKED = address('192.0.2.20');

await t.test('a firewall that knows one address of the peer lets its answers in', async (t) => {
  const sites = multihomed();
  const asked = new Set<SocketAddress>();
  const { fate } = sites.network;
  sites.network.fate = (datagram) => {
    if (datagram.from.startsWith('192.0.2.1:')) asked.add(datagram.to);
    else if (!asked.has(datagram.from)) return [];
    return fate(datagram);
  };
  sites.send('a', 1);
  sites.send('b', 2);
  t.same([sites.received('b'), sites.received('a')], [[1], [2]]);
  for (let number = 3; number < 303; number++) {
    sites.send('b', number);
    sites.advance(SECOND);
  }
  t.equal(sites.received('a').length, 301, 'also when the session is replaced');
  t.same([...asked], [at(ASKED)]);
});

await t.test('an address that goes away under traffic costs no packet', async (t) => {
  const sites = multihomed();
  const sources = watch(sites);
  sites.send('a', 1);
  sites.send('b', 2);
  sites.b.addresses = [FIRST];
  sites.send('b', 3);
  t.equal(sources.at(-1), at(FIRST));
  sites.send('a', 4);
  t.same(
    [sites.received('a'), sites.received('b')],
    [
      [2, 3],
      [1, 4],
    ],
  );
  t.match(sites.a.engine.status().peers, [{ endpoint: at(FIRST) }]);
});

await t.test('a peer that asks another address is answered from that', async (t) => {
  const sites = multihomed();
  const sources = watch(sites);
  sites.send('a', 1);
  configureA(sites, FIRST);
  sites.send('a', 2);
  sites.send('b', 3);
  t.equal(sources.at(-1), at(FIRST));
  t.same([sites.received('a'), sites.received('b')], [[3], [1, 2]]);
});

await t.test('who calls first leaves the choice to the kernel, again and again', async (t) => {
  const sites = multihomed();
  const sources = watch(sites, 'b');
  const [first, other] = [address('192.0.2.1'), address('192.0.2.10')];
  sites.send('a', 1);
  sites.send('b', 2);
  sites.send('a', 3);
  sites.a.addresses = [other, first];
  sites.send('a', 4);
  t.same(sources.slice(-2), [at(first), at(other)]);
  t.same(sites.received('b'), [1, 3, 4]);
});

await t.test('when the port moves the kernel chooses again', async (t) => {
  const sites = multihomed();
  const sources = watch(sites);
  sites.send('a', 1);
  sites.send('b', 2);
  t.equal(sources.at(-1), at(ASKED));
  const peer = { id: 'a', publicKey: sites.a.publicKey, allowedIps: ['10.0.0.1/32'] };
  const own = { addresses: ['10.0.0.2/24'], listenPort: 4000 };
  sites.b.configure({ interface: own, peers: [peer] });
  sites.send('b', 3);
  t.equal(sources.at(-1), socketAddress(FIRST, 4000));
  t.same(sites.received('a'), [2, 3]);
});

await t.test('so it does when a handshake finds no answer from the old address', async (t) => {
  const sites = multihomed();
  const sources = watch(sites);
  sites.send('a', 1);
  sites.loss = 1;
  sites.send('b', 2);
  sites.advance(30 * SECOND);
  t.equal(sources.at(-1), at(FIRST));
  const first = sources.indexOf(at(FIRST));
  t.ok(
    sources.slice(0, first).length >= 3,
    'response, data and an initiation still went out as before',
  );
});

/** `b` has two addresses, and `a` knows the one that the kernel of `b` would not choose. */
function multihomed(): TwoSites {
  const sites = new TwoSites(SEED);
  sites.b.addresses = [FIRST, ASKED];
  configureA(sites, ASKED);
  return sites;
}

function configureA(sites: TwoSites, endpoint: typeof ASKED): void {
  const { publicKey } = sites.b;
  const peer = { id: 'b', publicKey, endpoint: at(endpoint), allowedIps: ['10.0.0.2/32'] };
  sites.a.configure({ interface: { addresses: ['10.0.0.1/24'] }, peers: [peer] });
}

/** From where datagrams leave one of the sites, or arrive at the other. */
function watch(sites: TwoSites, to: 'a' | 'b' = 'a'): SocketAddress[] {
  const sources: SocketAddress[] = [];
  const { fate } = sites.network;
  const prefix = to === 'a' ? '192.0.2.1:' : '192.0.2.2';
  sites.network.fate = (datagram) => {
    if (datagram.to.startsWith(prefix)) sources.push(datagram.from);
    return fate(datagram);
  };
  return sources;
}

function at(ip: typeof ASKED): SocketAddress {
  return socketAddress(ip, 51_820);
}
