import t from 'tap';
import type { Event } from '../../../core/engine/event.ts';
import { openPublication } from '../../../core/fleet/device-signature.ts';
import { MemoryNetwork } from '../../memory/datagrams.ts';
import { CLIENT, ResourceSites } from '../../sim/resource-sites.ts';
import { Site } from '../../sim/site.ts';
import { TwoSites } from '../../sim/two-sites.ts';
import { VirtualTime } from '../../sim/virtual-time.ts';
import { ACK, FIN, SYN, tcp } from '../fastpath/packets.ts';
import { crypto, deviceOptions, devicePublicKey, UNIX_MS } from '../fleet/fleet-scene.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

await t.test('a drain is over 10 s after the last packet', async (t) => {
  const sites = new TwoSites(SEED);
  sites.send('a', 1);
  sites.a.input({ type: 'drain' });
  t.same(drainEvents(sites.a), [{ type: 'drain-begun', peers: ['b'] }]);
  t.equal(sites.a.engine.status().phase, 'draining');
  for (let number = 2; number < 40; number++) {
    sites.advance(SECOND);
    sites.send('b', number);
  }
  sites.advance(9 * SECOND);
  t.match(sites.a.engine.status().drain, { peers: ['b'] }, 'a packet came lately');
  t.equal(drainEvents(sites.a).length, 1);
  sites.advance(3 * SECOND);
  t.same(drainEvents(sites.a).slice(1), [{ type: 'drained', busy: [] }]);
});

await t.test('keepalives are no traffic', async (t) => {
  const sites = new TwoSites(SEED);
  sites.b.configure({
    interface: { addresses: ['10.0.0.2/24'] },
    peers: [
      {
        id: 'a',
        publicKey: sites.a.publicKey,
        endpoint: '192.0.2.1:51820',
        allowedIps: ['10.0.0.1/32'],
        keepalive: 5,
      },
    ],
  });
  sites.send('a', 1);
  sites.advance(20 * SECOND);
  const before = sites.a.engine.status().peers[0]?.rxBytes ?? 0;
  sites.a.input({ type: 'drain' });
  sites.advance(12 * SECOND);
  t.ok((sites.a.engine.status().peers[0]?.rxBytes ?? 0) > before, 'some came');
  t.same(drainEvents(sites.a).slice(1), [{ type: 'drained', busy: [] }]);
});

await t.test('while connections to resources are open, a pause may last 60 s', async (t) => {
  for (const closed of [false, true]) {
    const sites = new ResourceSites(SEED, {
      resources: [{ id: 'host', type: 'ip', address: '10.7.0.5' }],
      authorizations: [{ peer: 'client', resource: 'host' }],
    });
    const there = { source: '192.168.1.10', destination: '10.7.0.5', sourcePort: 4000 };
    const back = { source: '10.7.0.5', destination: CLIENT.ipv4, sourcePort: 443 };
    const say = (flags: number): void => {
      sites.send('client', tcp({ ...there, destinationPort: 443, flags }));
      sites.send('gateway', tcp({ ...back, destinationPort: 4000, flags }));
    };
    say(SYN | ACK);
    say(closed ? FIN | ACK : ACK);
    t.match(sites.gateway.engine.resources.nat(1, sites.time.now).total, 1);
    sites.advance(5 * SECOND);
    sites.gateway.input({ type: 'drain' });
    const over = (): boolean => sites.told('gateway', 'drained').length > 0;
    sites.advance(12 * SECOND);
    t.equal(over(), closed);
    if (closed) continue;
    t.match(sites.gateway.engine.status().drain, { peers: ['client'] });
    sites.advance(46 * SECOND);
    t.notOk(over());
    sites.advance(6 * SECOND);
    t.ok(over(), 'nobody seems to use it');
  }
});

await t.test('a drain is over after 5 min, whoever still talks', async (t) => {
  const sites = new TwoSites(SEED);
  sites.a.input({ type: 'drain' });
  for (let number = 0; number < 5 * 60; number++) {
    if (drainEvents(sites.a).length !== 1) t.fail(`over after ${number} s`);
    sites.send('a', number);
    sites.advance(SECOND);
  }
  t.same(drainEvents(sites.a).slice(1), [{ type: 'drained', busy: ['b'] }]);
});

await t.test('a peer that is removed is not waited for', async (t) => {
  const sites = new TwoSites(SEED);
  sites.send('a', 1);
  sites.advance(SECOND);
  sites.a.input({ type: 'drain' });
  sites.a.configure({ interface: { addresses: ['10.0.0.1/24'] }, peers: [] });
  sites.advance(2 * SECOND);
  t.same(sites.a.engine.status().drain?.peers, []);
});

await t.test('a drain that is cancelled never ends the daemon', async (t) => {
  const sites = new TwoSites(SEED);
  sites.a.input({ type: 'drain' });
  sites.a.input({ type: 'drain' });
  sites.advance(5 * SECOND);
  sites.a.input({ type: 'cancel-drain' });
  sites.a.input({ type: 'cancel-drain' });
  t.match(sites.a.engine.status(), { phase: 'running', drain: undefined });
  sites.advance(10 * MINUTE);
  const types = drainEvents(sites.a).map(({ type }) => type);
  t.same(types, ['drain-begun', 'drain-cancelled'], 'each told once');
});

await t.test('the fleet sees a device drain, resume and go', async (t) => {
  const time = new VirtualTime(UNIX_MS);
  const network = new MemoryNetwork();
  const fleet = deviceOptions();
  const site = new Site({ time, network, address: '192.0.2.1', seed: SEED, fleet });
  const presence = (): unknown => {
    const last = site.published.findLast(({ topic }) => topic.endsWith('/presence'));
    if (last === undefined) return undefined;
    const opened = openPublication(last.topic, last.payload, devicePublicKey, crypto);
    return opened.ok ? opened.value.payload : opened.why;
  };
  const event = { type: 'connected', broker: 'mqtt://b', protocol: '5' } as const;
  site.input({ type: 'control', event });
  for (const [input, state] of [
    [{ type: 'drain' }, 'draining'],
    [{ type: 'cancel-drain' }, 'ready'],
    [{ type: 'drain' }, 'draining'],
    [{ type: 'stop', reason: 'leaving' }, 'stopped'],
  ] as const) {
    site.input(input);
    t.match(presence(), { state });
  }
  time.advance(10 * MINUTE, () => undefined);
  t.notOk(
    site.events.some(({ type }) => type === 'drained'),
    'one that stopped drains no more',
  );
});

function drainEvents(site: Site): readonly Event[] {
  return site.events.filter(({ type }) => type.startsWith('drain'));
}
