import t from 'tap';
import type { FastPathKernel } from '../../../core/fastpath/kernel.ts';
import { MOST_REWRITE_SESSIONS } from '../../../core/fastpath/layout.ts';
import { MOST_ENDED, MOST_SESSIONS } from '../../../core/nat/session-table.ts';
import { parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { ACK, FIN, headersOf, partialRead, plainRead, SYN, tcp, udp } from '../fastpath/packets.ts';
import { forwardAll, kernels, packetOf, Station } from '../fastpath/station.ts';
import { echo, icmpError, ipProblem, quoteOf } from './icmp-packets.ts';
import { Gateway, idOf } from './gateway.ts';

/*
 * Access, resource NAT, sessions and the packet path together: clients, a gateway and the servers of its
 * site, packet by packet.
 */

const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
t.comment(`SEED=${seed}`);

const CLIENTS = ['100.64.0.2', '100.64.0.3'];
const PROXY = '100.96.0.1';
const OTHER_PROXY = '100.96.0.2';
const SERVER = '10.0.0.7';
const OTHER_SERVER = '10.0.0.8';
const RST = 0x04;
const EMPTY = new Uint8Array(0);

/** Clients, the gateway, and its LAN. */
class World {
  readonly gateway: Gateway;
  readonly #clients: Station[];

  constructor(kernel: FastPathKernel) {
    this.gateway = new Gateway(kernel, seed);
    this.#clients = [0, 1].map((peer) => {
      const station = new Station({
        policy: { ...forwardAll, outbound: () => ({ type: 'forward', peer }) },
      });
      station.connect(peer);
      return station;
    });
    const { access, authorizations, now } = this.gateway;
    const resources = ['crm', 'wiki'];
    access.setResources(resources.map((id) => ({ id, type: 'dns', patterns: [], filters: [] })));
    authorizations.replace(
      [0, 1].flatMap((peer) =>
        resources.map((resource) => ({ peer: idOf(peer), resource, filters: [] })),
      ),
      now,
    );
  }

  assign(peer: number, resource: string, proxies: string[], addresses: string[]): void {
    const domain = `${resource}.example`;
    const assignment = { peer: idOf(peer), resource, domain };
    this.gateway.resourceNat.assign({
      ...assignment,
      proxies: proxies.map(ip),
      addresses: addresses.map(ip),
    });
    this.gateway.station.path.invalidateFlows();
  }

  wait(ms: number): void {
    this.gateway.now = instantAt(this.gateway.now + ms);
    this.gateway.settle();
  }

  /** Sends a packet from a client; returns what reaches the LAN. */
  fromClient(peer: number, packet: Uint8Array): Uint8Array[] {
    const client = this.#clients[peer]!;
    client.read(plainRead(packet));
    this.gateway.station.receive([client.sent()]);
    const written = this.gateway.station.written();
    this.gateway.settle();
    return written;
  }

  /** Sends a packet from the LAN; returns what reaches the clients. */
  fromLan(packet: Uint8Array, isPartial = headersOf(packet).protocol !== 1): Uint8Array[] {
    this.gateway.station.read(isPartial ? partialRead(packet) : plainRead(packet));
    const sent = this.gateway.station.sent().map(packetOf);
    this.gateway.settle();
    return sent;
  }

  /** Packets of the gateway's own. */
  toClients(): Uint8Array[] {
    return this.gateway.station.sent().map(packetOf);
  }
}

await t.test('the packet path has room for every session of the table', async (t) => {
  t.ok(MOST_SESSIONS + MOST_ENDED + 1 <= MOST_REWRITE_SESSIONS);
});

for (const [name, create] of Object.entries(kernels)) {
  await t.test(name, async (t) => {
    await t.test('connections through proxies of one server arrive and come back', async (t) => {
      const world = new World(create());
      world.assign(0, 'crm', [PROXY, 'fd00:1::1'], [SERVER, 'fd00:9::7']);
      world.assign(0, 'wiki', [OTHER_PROXY, 'fd00:1::2'], [SERVER, 'fd00:9::7']);
      const pairs = new Set<string>();
      for (const family of [4, 6] as const) {
        const client = family === 4 ? CLIENTS[0]! : 'fd00::2';
        const proxies = family === 4 ? [PROXY, OTHER_PROXY] : ['fd00:1::1', 'fd00:1::2'];
        for (let port = 5000; port < 5020; port++) {
          for (const proxy of proxies) {
            for (const build of [tcp, udp]) {
              const payload = Uint8Array.of(port & 255, proxy.length);
              const request = {
                source: client,
                destination: proxy,
                sourcePort: port,
                destinationPort: 80,
              };
              const [arrived] = world.fromClient(0, build({ ...request, payload }));
              const { source, destination, sourcePort } = endsOf(arrived);
              t.same([source, destination], [client, family === 4 ? SERVER : 'fd00:9::7']);
              const key = `${build.name} ${family} ${sourcePort}`;
              t.notOk(pairs.has(key), key);
              pairs.add(key);
              const reply = {
                source: destination,
                destination: source,
                sourcePort: 80,
                destinationPort: sourcePort,
              };
              const [back] = world.fromLan(build({ ...reply, payload }));
              const wanted = {
                source: proxy,
                destination: client,
                sourcePort: 80,
                destinationPort: port,
              };
              t.same(back, build({ ...wanted, payload }));
            }
          }
        }
      }
    });

    await t.test('two pings with one identifier are told apart', async (t) => {
      const world = new World(create());
      world.assign(0, 'crm', [PROXY], [SERVER]);
      world.assign(0, 'wiki', [OTHER_PROXY], [SERVER]);
      for (const proxy of [PROXY, OTHER_PROXY]) {
        const [arrived] = world.fromClient(0, echo(CLIENTS[0]!, proxy, 9));
        const identifier = arrived === undefined ? 0 : new DataView(arrived.buffer).getUint16(24);
        t.equal(identifier, proxy === PROXY ? 9 : 10);
        t.same(arrived, echo(CLIENTS[0]!, SERVER, identifier));
        const [back] = world.fromLan(echo(SERVER, CLIENTS[0]!, identifier, { isReply: true }));
        t.same(back, echo(proxy, CLIENTS[0]!, 9, { isReply: true }));
      }
    });

    await t.test('two clients may use the same proxy for different servers', async (t) => {
      const world = new World(create());
      world.assign(0, 'crm', [PROXY], [SERVER]);
      world.assign(1, 'crm', [PROXY], [OTHER_SERVER]);
      for (const [peer, server] of [SERVER, OTHER_SERVER].entries()) {
        const client = CLIENTS[peer]!;
        const [arrived] = world.fromClient(
          peer,
          udp({ source: client, destination: PROXY, sourcePort: 7 }),
        );
        t.match(endsOf(arrived), { source: client, destination: server, sourcePort: 7 });
        const reply = { sourcePort: 6000, destinationPort: 7 };
        const [back] = world.fromLan(udp({ source: server, destination: client, ...reply }));
        t.same(back, udp({ source: PROXY, destination: client, ...reply }));
      }
    });

    await t.test('re-resolving never cuts an established connection', async (t) => {
      const world = new World(create());
      world.assign(0, 'crm', [PROXY], [SERVER]);
      const request = {
        source: CLIENTS[0]!,
        destination: PROXY,
        sourcePort: 5000,
        destinationPort: 80,
      };
      world.fromClient(0, tcp({ ...request, flags: SYN, payload: EMPTY }));
      world.assign(0, 'crm', [PROXY], [OTHER_SERVER]);
      world.gateway.station.path.invalidateFlows();
      const [established] = world.fromClient(0, tcp(request));
      t.equal(endsOf(established).destination, SERVER);
      const [fresh] = world.fromClient(0, tcp({ ...request, sourcePort: 5001 }));
      t.equal(endsOf(fresh).destination, OTHER_SERVER);
      const reply = { sourcePort: 80, destinationPort: 5000, destination: CLIENTS[0]! };
      const [back] = world.fromLan(tcp({ ...reply, source: SERVER }));
      t.same(back, tcp({ ...reply, source: PROXY }));
    });

    await t.test('a late reply of a session that is over goes nowhere', async (t) => {
      const world = new World(create());
      world.assign(0, 'crm', [PROXY], [SERVER]);
      const request = {
        source: CLIENTS[0]!,
        destination: PROXY,
        sourcePort: 5000,
        destinationPort: 80,
      };
      const reply = {
        source: SERVER,
        destination: CLIENTS[0]!,
        sourcePort: 80,
        destinationPort: 5000,
      };
      world.fromClient(0, tcp({ ...request, flags: SYN, payload: EMPTY }));
      world.fromLan(tcp({ ...reply, flags: SYN | ACK, payload: EMPTY }));
      world.fromClient(0, tcp({ ...request, flags: FIN | ACK, payload: EMPTY }));
      t.equal(world.fromLan(tcp({ ...reply, flags: FIN | ACK, payload: EMPTY })).length, 1);
      world.wait(5001);
      t.equal(world.gateway.sessions.size, 0);
      t.same(world.fromLan(tcp(reply)), []);
      t.match(world.gateway.station.path.drops, { 'expired-nat-session': 1 });
      const [again] = world.fromClient(0, tcp({ ...request, flags: SYN, payload: EMPTY }));
      t.equal(endsOf(again).sourcePort, 5000);
      t.equal(world.fromLan(tcp({ ...reply, flags: SYN | ACK, payload: EMPTY })).length, 1);
      world.fromLan(tcp({ ...reply, flags: RST, payload: EMPTY }));
      t.equal(world.gateway.sessions.size, 0, 'a RST ends at once');
      t.same(world.fromLan(tcp(reply)), []);
    });

    await t.test(
      'a server that spoke before there was a session is heard when there is one',
      async (t) => {
        const world = new World(create());
        world.assign(0, 'crm', [PROXY], [SERVER]);
        const early = {
          source: SERVER,
          destination: CLIENTS[0]!,
          sourcePort: 80,
          destinationPort: 5000,
        };
        t.same(world.fromLan(udp(early)), []);
        const pong = echo(SERVER, CLIENTS[0]!, 9, { isReply: true });
        t.same(world.fromLan(pong), []);
        const request = { source: CLIENTS[0]!, destination: PROXY };
        world.fromClient(0, udp({ ...request, sourcePort: 5000, destinationPort: 80 }));
        t.same(world.fromLan(udp(early)), [udp({ ...early, source: PROXY })]);
        world.fromClient(0, echo(CLIENTS[0]!, PROXY, 9));
        t.same(world.fromLan(pong), [echo(PROXY, CLIENTS[0]!, 9, { isReply: true })]);
      },
    );

    await t.test(
      'what is revoked is refused with ICMP, in the middle of a connection',
      async (t) => {
        const world = new World(create());
        world.assign(0, 'crm', [PROXY], [SERVER]);
        const request = udp({ source: CLIENTS[0]!, destination: PROXY });
        t.equal(world.fromClient(0, request).length, 1);
        world.gateway.authorizations.revoke(idOf(0), 'crm');
        world.gateway.settle();
        t.same(world.fromClient(0, request), []);
        const [answer] = world.toClients();
        t.same(answer?.subarray(20, 22), Uint8Array.of(3, 13), 'administratively prohibited');
        t.equal(world.gateway.sessions.size, 0);
        t.same(
          world.fromLan(udp({ source: SERVER, destination: CLIENTS[0]!, destinationPort: 5000 })),
          [],
        );
      },
    );

    await t.test('a name without addresses in the family is an unreachable host', async (t) => {
      const world = new World(create());
      world.assign(0, 'crm', [PROXY, 'fd00:1::1'], [SERVER]);
      t.same(world.fromClient(0, udp({ source: 'fd00::2', destination: 'fd00:1::1' })), []);
      const [answer] = world.toClients();
      t.same(answer?.subarray(40, 42), Uint8Array.of(1, 3), 'address unreachable');
    });

    await t.test(
      'a router of the site is heard about the packet that the client sent',
      async (t) => {
        const world = new World(create());
        world.assign(0, 'crm', [PROXY], [SERVER]);
        const request = udp({ source: CLIENTS[0]!, destination: PROXY, sourcePort: 33_434 });
        const [arrived] = world.fromClient(0, request);
        const error = { type: 11, code: 0, rest: 0, destination: CLIENTS[0]! };
        world.fromLan(icmpError({ ...error, source: '10.0.0.254' }, arrived!), false);
        const [back] = world.toClients();
        t.equal(back && ipProblem(back), undefined);
        t.same(back, icmpError({ ...error, source: PROXY }, request));
        t.same(back && quoteOf(back), request);
        t.same(
          world.fromClient(
            0,
            icmpError({ ...error, source: CLIENTS[0]!, destination: PROXY }, arrived!),
          ),
          [],
          'those of clients go nowhere',
        );
      },
    );
  });
}

function endsOf(packet: Uint8Array | undefined): {
  source: string;
  destination: string;
  sourcePort: number;
} {
  if (packet === undefined) return { source: '', destination: '', sourcePort: 0 };
  if (ipProblem(packet) !== undefined) throw new Error(ipProblem(packet));
  const { family, transport } = headersOf(packet);
  const text = (at: number): string =>
    family === 4
      ? packet.subarray(at, at + 4).join('.')
      : canonical(Buffer.from(packet.subarray(at, at + 16)).toString('hex'));
  return {
    source: text(family === 4 ? 12 : 8),
    destination: text(family === 4 ? 16 : 24),
    sourcePort: new DataView(packet.buffer, packet.byteOffset).getUint16(transport),
  };
}

function canonical(hex: string): string {
  return ip(hex.replaceAll(/(.{4})(?!$)/g, '$1:'));
}

function ip(text: string): IpAddress {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
