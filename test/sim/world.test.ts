import t from 'tap';
import { socketAddress, type SocketAddress } from '../../core/net/socket-address.ts';
import { instantAt } from '../../core/sansio/instant.ts';
import { EventQueue } from './event-queue.ts';
import type { Host } from './host.ts';
import { SeededRandom } from './seeded-random.ts';
import { World } from './world.ts';

await t.test('what is due at the same time happens in the order of queueing', async (t) => {
  const queue = new EventQueue();
  const random = new SeededRandom(1);
  const happened: { at: number; sequence: number }[] = [];
  for (let sequence = 0; sequence < 2_000; sequence++) {
    const at = Math.floor(random.fraction() * 50);
    queue.push(instantAt(at), { happen: () => void happened.push({ at, sequence }) });
    if (sequence % 3 === 0) queue.pop();
  }
  while (queue.length > 0) queue.pop().happen();
  const sorted = [...happened].sort((a, b) => a.at - b.at || a.sequence - b.sequence);
  t.same(happened, sorted);
});

await t.test('a datagram takes the latency of the lines on its way', async (t) => {
  const world = new World(1);
  const server = echo(world);
  const client = speaker(world.host('client', world.network({ behind: 'fullCone' }).network));
  client.say(server, 'hello');
  world.run(40.3);
  t.same(client.heard, []);
  world.run(0.2);
  t.same(client.heard, [`${server} hello`]);
});

await t.test('two runs of a seed are the same to the last bit', async (t) => {
  const run = (seed: number) => {
    const world = new World(seed);
    const server = echo(world);
    const { network } = world.network({
      behind: 'symmetricRandom',
      wan: { loss: 0.2, jitter: 10, duplication: 0.1, reordering: 0.1 },
    });
    const client = speaker(world.host('client', network));
    const heard: string[] = [];
    for (let i = 0; i < 100; i++) {
      client.say(server, String(i));
      world.run(10);
      heard.push(`${world.timeline.happened} ${client.heard.join()}`);
    }
    return heard.join('\n');
  };
  t.equal(run(5), run(5));
  t.not(run(5), run(6));
});

await t.test(
  'behind two NATs a server sees the outer one, and its answer finds the way',
  async (t) => {
    const world = new World(1);
    const seen: string[] = [];
    const server = world.host('server');
    const socket = server.listen(7, (from, _to, payload) => {
      seen.push(from);
      socket.send(from, payload);
    });
    const carrier = world.network({ behind: 'cgnat', ipv4Prefix: '100.64.0.' });
    const home = world.network({ behind: 'portRestrictedCone', outside: carrier.network });
    const client = speaker(world.host('client', home.network));
    client.say(endpointOf(server, 7), 'x');
    world.run(100);
    t.match(seen, [new RegExp(`^${carrier.gateway.nat?.external}:`)]);
    t.equal(client.heard.length, 1);
  },
);

await t.test('IPv6 is routed, and a stateful firewall lets in only answers', async (t) => {
  const world = new World(1);
  const families = [4, 6] as const;
  const network = () => world.network({ behind: 'symmetric' }).network;
  const a = speaker(world.host('a', network(), { families }));
  const b = speaker(world.host('b', network(), { families }));
  a.say(b.ipv6, 'one');
  world.run(100);
  t.same(b.heard, []);
  b.say(a.ipv6, 'two');
  world.run(100);
  t.same(a.heard, [`${b.ipv6} two`]);
  a.say(b.ipv6, 'three');
  world.run(100);
  t.same(b.heard, [`${a.ipv6} three`]);
});

await t.test(
  'hosts behind one NAT meet through its outer address only where it hairpins',
  async (t) => {
    for (const behind of ['fullCone', 'cgnat'] as const) {
      const world = new World(1);
      const server = echo(world);
      const { network, gateway } = world.network({ behind });
      const a = speaker(world.host('a', network));
      const b = speaker(world.host('b', network));
      const outer = [a, b].map((host) => {
        const external = gateway.nat?.outbound(host.ipv4, server, world.now);
        return external!;
      });
      a.say(outer[1]!, 'x');
      world.run(100);
      b.say(outer[0]!, 'y');
      world.run(100);
      t.same(a.heard, behind === 'cgnat' ? [`${outer[1]} y`] : []);
    }
  },
);

await t.test('overlapping LANs do not mix', async (t) => {
  const world = new World(1);
  const lan = () => world.network({ behind: 'fullCone', ipv4Prefix: '192.168.1.' }).network;
  const a = speaker(world.host('a', lan()));
  const b = speaker(world.host('b', lan()));
  t.equal(a.ipv4, b.ipv4);
  a.say(b.ipv4, 'x');
  world.run(100);
  t.same(a.heard, [`${a.ipv4} x`], 'the address of the other is its own');
  t.same(b.heard, []);
});

await t.test('a block holds in both directions until it is lifted', async (t) => {
  const world = new World(1);
  const server = echo(world);
  const { network, gateway } = world.network({ behind: 'fullCone' });
  const client = speaker(world.host('client', network));
  const lift = gateway.block(({ remote }) => remote === server);
  client.say(server, '1');
  world.run(100);
  lift();
  client.say(server, '2');
  world.run(100);
  t.same(client.heard, [`${server} 2`]);
});

await t.test(
  'a machine that sleeps hears nothing, and its alarms ring when it wakes',
  async (t) => {
    for (const isCounted of [true, false]) {
      const world = new World(1);
      const sleeper = speaker(world.host('sleeper'));
      const other = speaker(world.host('other'));
      const clock = sleeper.host.clock();
      const rung: number[] = [];
      clock.alarm(instantAt(10_000), () => rung.push(clock.now()));
      world.run(1_000);
      sleeper.host.sleep(3_600_000, { isCounted });
      other.say(sleeper.ipv4, 'missed');
      world.run(3_600_000);
      t.same(sleeper.heard, []);
      t.equal(clock.unixMs() - clock.now(), Date.UTC(2026, 0, 1) + (isCounted ? 0 : 3_600_000));
      t.same(rung, isCounted ? [3_601_000] : []);
      world.run(9_000);
      t.same(rung, isCounted ? [3_601_000] : [10_000]);
      other.say(sleeper.ipv4, 'heard');
      world.run(100);
      t.same(sleeper.heard, [`${other.ipv4} heard`]);
    }
  },
);

await t.test(
  'a clock rings once, at its last alarm, and not after its process is killed',
  async (t) => {
    const world = new World(1);
    const host = world.host('host');
    const clock = host.clock();
    const rung: string[] = [];
    clock.alarm(instantAt(50), () => rung.push('late'));
    clock.alarm(instantAt(20), () => rung.push(`early ${world.now}`));
    world.run(100);
    t.same(rung, ['early 20']);
    clock.alarm(instantAt(200), () => rung.push('dead'));
    clock.soon(() => rung.push('dead'));
    host.kill();
    world.run(1_000);
    t.same(rung, ['early 20']);
  },
);

await t.test(
  'a clock whose alarm is moved about happens no more often than it rings',
  async (t) => {
    const world = new World(1);
    const clock = world.host('host').clock();
    const ring = (): void => {
      clock.alarm(instantAt(world.now + 50), ring);
      clock.alarm(instantAt(world.now + 10), ring);
    };
    ring();
    world.run(10_000);
    t.ok(world.timeline.happened < 2_100, String(world.timeline.happened));
  },
);

await t.test('a host that moves is reached where it is now', async (t) => {
  const world = new World(1);
  const server = echo(world);
  const { network, gateway } = world.network({ behind: 'fullCone' });
  const client = speaker(world.host('client', network));
  gateway.readdress(world.internet.newAddresses()[0]);
  client.say(server, '1');
  world.run(100);
  const old = client.ipv4;
  client.host.readdress([world.internet.newAddresses()[0]], world.internet);
  t.not(client.ipv4, old);
  client.say(server, '2');
  world.run(100);
  t.same(client.heard, [`${server} 1`, `${server} 2`]);
});

await t.test('a stream goes out anywhere, and in where a port is forwarded or open', async (t) => {
  const world = new World(1);
  const families = [4, 6] as const;
  const server = world.host('server', world.internet, { families });
  const blocked = world.network({ behind: 'udpBlocked' });
  const client = world.host('client', blocked.network, { families });
  const home = world.network({ behind: 'symmetric' });
  const target = world.host('target', home.network, { families });
  t.match(world.dial(client, endpointOf(server, 443)), {
    host: server,
    remote: `${blocked.gateway.nat?.external}:49152`,
    latency: 20.2,
  });
  const external = socketAddress(home.gateway.nat!.external, 443);
  t.notOk(world.canDial(client, external));
  home.gateway.nat?.forward(443, endpointOf(target, 8443));
  t.match(world.dial(client, external), { host: target });
  const inside = endpointOf(target, 8443, 6);
  t.notOk(world.canDial(client, inside));
  home.gateway.firewall?.open(inside);
  t.ok(world.canDial(client, inside));
  blocked.gateway.block(({ protocol }) => protocol === 'tcp');
  t.notOk(world.canDial(client, inside));
});

/** A host that notes what it hears on port 5000. */
function speaker(host: Host) {
  const heard: string[] = [];
  const socket = host.listen(5000, (from, _to, payload) => {
    heard.push(`${from} ${Buffer.from(payload).toString()}`);
  });
  return {
    host,
    heard,
    get ipv4() {
      return endpointOf(host, 5000);
    },
    get ipv6() {
      return endpointOf(host, 5000, 6);
    },
    say: (to: SocketAddress, text: string) => socket.send(to, Buffer.from(text)),
  };
}

function echo(world: World): SocketAddress {
  const host = world.host('echo');
  const socket = host.listen(7, (from, _to, payload) => socket.send(from, payload));
  return endpointOf(host, 7);
}

function endpointOf(host: Host, port: number, family: 4 | 6 = 4): SocketAddress {
  return socketAddress(host.address(family)!, port);
}
