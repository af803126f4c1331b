import t, { type Test } from 'tap';
import type { IpAddress } from '../../core/net/ip-address.ts';
import { socketAddress, socketAddressPort } from '../../core/net/socket-address.ts';
import type { StreamEvent } from '../../core/plugin/streams.ts';
import { streamTransportContract, type StreamsWorld } from '../contract/transport.ts';
import { VirtualTime } from '../sim/virtual-time.ts';
import { MemoryStreamNetwork, type MemoryStreams } from './streams.ts';

const LOCALHOST = '127.0.0.1' as IpAddress;
const SILENT = '192.0.2.1' as IpAddress;

class MemoryWorld implements StreamsWorld {
  readonly protocols = ['tcp', 'tls', 'ws', 'wss'] as const;
  readonly network: MemoryStreamNetwork;
  readonly #time = new VirtualTime(0);
  readonly #host;
  #lastPort = 1000;

  constructor() {
    this.network = new MemoryStreamNetwork(this.#time.clock());
    this.network.path = ({ to }) => (to.startsWith(SILENT) ? 'stalls' : 'passes');
    this.#host = this.network.host(
      (address) => address === LOCALHOST,
      () => LOCALHOST,
    );
  }

  create(): MemoryStreams {
    return this.#host.createStreams();
  }

  stop(streams: MemoryStreams): void {
    streams.stop();
  }

  async freePort() {
    const port = ++this.#lastPort;
    return { port, address: socketAddress(LOCALHOST, port) };
  }

  async until(condition: () => boolean): Promise<void> {
    // One segment at a time would do; nothing else happens by itself.
    for (let turns = 0; !condition(); turns++) {
      if (turns > 100) throw new Error(`waited in vain for ${String(condition)}`);
      this.network.deliver();
      await Promise.resolve();
    }
  }

  async pass(ms: number): Promise<void> {
    this.#time.advance(ms, () => this.network.deliver());
  }

  async listenSilently() {
    return socketAddress(SILENT, 443);
  }
}

await t.test('streams in memory keep the contract', async (t) => {
  await streamTransportContract(t, async () => new MemoryWorld());
});

await t.test('where all TCP is blocked but port 443, only that opens', async (t) => {
  const world = new MemoryWorld();
  world.network.path = ({ to }) => (socketAddressPort(to) === 443 ? 'passes' : 'stalls');
  const { a, b, events } = pair(t, world);
  await b.listen({ port: 443, deviceKey: new Uint8Array(32) });
  for (const [stream, port] of [
    [2, 443],
    [4, 8443],
  ] as const) {
    const address = socketAddress(LOCALHOST, port);
    a.dial(stream, { protocol: 'ws', address, trust: { type: 'any' } });
  }
  await world.pass(6000);
  t.same(
    events.map(({ type, stream }) => `${type} ${stream}`),
    ['opened 2', 'closed 4'],
  );
});

await t.test('a stream that stalls goes on where it was; one that breaks is closed', async (t) => {
  const world = new MemoryWorld();
  const { a, b, events, arrived } = pair(t, world);
  await b.listen({ port: 443, deviceKey: new Uint8Array(32) });
  const address = socketAddress(LOCALHOST, 443);
  a.dial(2, { protocol: 'tls', address, trust: { type: 'any' } });
  world.network.deliver();
  a.send(2, Uint8Array.of(1));
  world.network.deliver();
  world.network.path = () => 'stalls';
  a.send(2, Uint8Array.of(2));
  await world.pass(60_000);
  t.same(arrived, [1]);
  t.equal(a.waiting, 1);
  world.network.path = () => 'passes';
  world.network.deliver();
  t.same(arrived, [1, 2]);
  world.network.path = () => 'refuses';
  a.send(2, Uint8Array.of(3));
  world.network.deliver();
  t.same(arrived, [1, 2]);
  t.match(events.at(-1), { type: 'closed', stream: 2 });
  t.equal(a.waiting, 0);
});

await t.test('a listener behind a translator sees the translated addresses', async (t) => {
  const world = new MemoryWorld();
  const outside = socketAddress('203.0.113.7' as IpAddress, 1234);
  world.network.translate = (route) => ({ ...route, from: outside });
  const { a, b, accepted } = pair(t, world);
  await b.listen({ port: 443, deviceKey: new Uint8Array(32) });
  const address = socketAddress(LOCALHOST, 443);
  a.dial(2, { protocol: 'ws', address, trust: { type: 'any' } });
  world.network.deliver();
  t.match(accepted, [{ type: 'accepted', protocol: 'ws', remote: outside, local: address }]);
});

function pair(t: Test, world: MemoryWorld) {
  const [a, b] = [world.create(), world.create()];
  t.teardown(() => [a, b].forEach((streams) => streams.stop()));
  const events: StreamEvent[] = [];
  const accepted: StreamEvent[] = [];
  const arrived: number[] = [];
  a.listenTo((event) => events.push(event));
  b.listenTo((event) => {
    if (event.type === 'data') arrived.push(...event.bytes);
    else accepted.push(event);
  });
  return { a, b, events, accepted, arrived };
}
