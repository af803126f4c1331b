import t from 'tap';
import { parseName } from '../../../core/config/name.ts';
import type { DialTarget, Streams } from '../../../core/plugin/streams.ts';
import type { UapiSet } from '../../../core/wireguard/uapi.ts';
import { failed, ok } from '../../../core/sansio/outcome.ts';
import { MemoryNetwork } from '../../memory/datagrams.ts';
import { address, Site } from '../../sim/site.ts';
import { VirtualTime } from '../../sim/virtual-time.ts';
import { deviceOptions, UNIX_MS } from '../fleet/fleet-scene.ts';

const SEED = 1;

await t.test('when our addresses change, the broker has to show that it is there', async (t) => {
  const time = new VirtualTime(UNIX_MS);
  let checks = 0;
  const site = new Site({
    time,
    network: new MemoryNetwork(),
    address: '192.0.2.1',
    seed: SEED,
    fleet: deviceOptions(),
    control: {
      connect: () => ok(undefined),
      publish: () => undefined,
      checkConnection: () => void checks++,
      close: async () => undefined,
    },
  });
  const have = (...addresses: readonly string[]): void =>
    site.input({ type: 'local-addresses', addresses: addresses.map(address) });
  have('192.0.2.1');
  t.equal(checks, 0, 'the first answer is no change');
  have('192.0.2.1');
  t.equal(checks, 0);
  have('192.0.2.1', '2001:db8::1');
  t.equal(checks, 1);
  have();
  t.equal(checks, 2);
});

await t.test('streams that are dialled carry the mark that the datagrams have', async (t) => {
  const time = new VirtualTime(UNIX_MS);
  const { dialled, streams } = recordingStreams();
  const network = new MemoryNetwork();
  const site = new Site({ time, network, address: '192.0.2.1', seed: SEED, streams });
  const configure = (port: number): void =>
    site.configure({
      interface: { addresses: ['10.0.0.1/24'] },
      peers: [],
      relays: [{ url: `turns:192.0.2.9:${port}`, username: 'u', credential: 'c' }],
    });
  configure(443);
  t.match(dialled, [{ address: '192.0.2.9:443', mark: undefined }]);
  const request: UapiSet = {
    type: 'set',
    privateKey: undefined,
    listenPort: undefined,
    fwmark: 0x51,
    replacePeers: false,
    peers: [],
  };
  site.input({ type: 'uapi-set', request });
  configure(444);
  t.match(dialled.at(-1), { address: '192.0.2.9:444', mark: 0x51 });
});

await t.test('peers are told the port that the firewall redirects to the listener', async (t) => {
  const time = new VirtualTime(UNIX_MS);
  const network = new MemoryNetwork();
  network.fate = () => [];
  const { dialled, streams } = recordingStreams();
  const listening: number[] = [];
  const listener: Streams = {
    ...recordingStreams().streams,
    listen: async (options) => {
      listening.push(options?.port ?? 0);
      return ok(undefined);
    },
  };
  const a = new Site({ ...deviceOf('a', 1), time, network, streams: listener });
  const b = new Site({ ...deviceOf('b', 2), time, network, streams });
  const connected = { type: 'connected', broker: 'mqtt://b', protocol: '5' } as const;
  for (const site of [a, b]) site.input({ type: 'control', event: connected });
  a.configure(documentFor('b', b.publicKey, { listenPort: 8443, publicPort: 443 }));
  b.configure(documentFor('a', a.publicKey, {}));
  a.input({ type: 'local-addresses', addresses: [address('192.0.2.1')] });
  for (let second = 0; second < 5; second++) {
    time.advance(1000, () => network.deliver());
    for (const { topic, payload } of a.published.splice(0)) {
      b.input({ type: 'control', event: { type: 'message', topic, payload } });
    }
  }
  t.equal(listening.at(-1), 8443);
  t.ok(dialled.length > 0);
  t.ok(dialled.every((target) => target.address === '192.0.2.1:443' && target.protocol === 'tls'));
});

await t.test('the status says whether streams are accepted, and why not', async (t) => {
  const time = new VirtualTime(UNIX_MS);
  const site = new Site({ time, network: new MemoryNetwork(), address: '192.0.2.1', seed: SEED });
  const configure = (streams: object): void =>
    site.configure({ interface: { addresses: ['10.0.0.1/24'] }, peers: [], streams });
  const streams = () => site.engine.status().streams;
  configure({});
  t.equal(streams(), undefined);
  configure({ listenPort: 8443, publicPort: 443 });
  site.input({ type: 'streams-listening', outcome: failed('port-taken') });
  t.same(streams(), { listening: false, port: 8443, publicPort: 443, why: 'port-taken' });
  t.match(site.events.at(-1), { type: 'streams-not-listening', why: 'port-taken' });
  site.input({ type: 'streams-listening', outcome: ok(undefined) });
  t.same(streams(), { listening: true, port: 8443, publicPort: 443 });
});

function recordingStreams() {
  const dialled: DialTarget[] = [];
  const streams: Streams = {
    listenTo: () => undefined,
    dial: (_stream, target) => void dialled.push(target),
    listen: async () => ok(undefined),
    send: () => false,
    close: () => undefined,
    waiting: 0,
  };
  return { dialled, streams };
}

function deviceOf(name: 'a' | 'b', seed: number) {
  const device = parseName(name)!;
  return { address: `192.0.2.${seed}`, seed, fleet: { ...deviceOptions(), device } };
}

function documentFor(id: string, publicKey: string, streams: object) {
  const peer = { id, publicKey, kind: 'culvert', allowedIps: [`10.0.0.${id === 'a' ? 1 : 2}/32`] };
  const own = id === 'a' ? '10.0.0.2/24' : '10.0.0.1/24';
  return { interface: { addresses: [own] }, peers: [peer], streams };
}
