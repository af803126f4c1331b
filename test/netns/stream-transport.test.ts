import t from 'tap';
import type { StreamEvent } from '../../core/plugin/streams.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { StreamTransport } from '../../plugins/transport-stream/stream-transport.ts';
import { address, Loopback } from '../plugins/transport-stream/loopback.ts';
import { inNamespace, loadSystemCalls, run } from './netlink-namespace.ts';

if (await inNamespace(import.meta.url)) {
  const native = await loadSystemCalls();

  const listener = async (world: Loopback, streams: StreamTransport) => {
    const { port } = await world.freePort();
    const listening = await streams.listen({ port, deviceKey: new Uint8Array(32).fill(1) });
    return { port, listening };
  };

  await t.test('the mark is on every packet of a stream, the first one too', async (t) => {
    const world = new Loopback(t, { native });
    const b = world.create();
    const a = world.create();
    t.teardown(() => [a, b].forEach((streams) => streams.stop()));
    const { port } = await listener(world, b);
    run('nft', 'add table inet marks');
    run('nft', 'add chain inet marks out { type filter hook output priority 0; }');
    const count = (what: string): void =>
      void run('nft', `add rule inet marks out tcp dport ${port} ${what} counter`);
    count('tcp flags syn / syn,ack meta mark 0x42');
    count('meta mark != 0x42');
    const events: StreamEvent[] = [];
    a.listenTo((event) => events.push(event));
    for (const [i, ip] of ['127.0.0.1', '::1'].entries()) {
      const target = { address: address(ip, port), trust: { type: 'any' }, mark: 0x42 } as const;
      a.dial(2 * i, { ...target, protocol: 'wss' });
      await world.until(() => events.length === i + 1);
      a.close(2 * i);
    }
    t.match(events, [{ type: 'opened' }, { type: 'opened' }]);
    await world.until(() => a.waiting === 0);
    const packets = [...run('nft', 'list', 'table', 'inet', 'marks').matchAll(/packets (\d+)/g)];
    t.same(
      packets.map(([, number]) => Number(number)),
      [2, 0],
    );
  });

  await t.test('without IPv6 there is IPv4 alone', async (t) => {
    run('sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1');
    const world = new Loopback(t);
    const a = new StreamTransport(undefined, nullLog);
    const b = new StreamTransport(undefined, nullLog);
    t.teardown(() => [a, b].forEach((streams) => streams.stop()));
    const { port, listening } = await listener(world, b);
    t.ok(listening.ok);
    const events: StreamEvent[] = [];
    a.listenTo((event) => events.push(event));
    const at = address('127.0.0.1', port);
    a.dial(2, { protocol: 'wss', address: at, trust: { type: 'any' } });
    a.dial(4, { protocol: 'wss', address: address('::1', port), trust: { type: 'any' } });
    await world.until(() => events.length === 2);
    const byStream = events.sort((one, other) => one.stream - other.stream);
    t.match(byStream, [{ type: 'opened' }, { type: 'closed', why: /no (address|route)/ }]);
  });
}
