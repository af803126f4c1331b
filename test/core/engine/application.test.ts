import t from 'tap';
import { parseConfiguration, type Configuration } from '../../../core/config/configuration.ts';
import { Application, wantedLink, type Target } from '../../../core/engine/application.ts';
import { formatIpPrefix } from '../../../core/net/ip-prefix.ts';

const OFFLOADS = { tcp: true, udp: true };
const LISTENING = { port: 51820, ipv4: 3, ipv6: 4 };

await t.test(
  'a first configuration opens the device, binds the port, then changes peers and link',
  async (t) => {
    const application = new Application();
    application.apply(target({}));
    t.match(application.pollCommand(), { type: 'open-device', name: 'culvert0', mtu: 1408 });
    t.equal(application.pollCommand(), undefined, 'one step at a time');

    application.handleResult({ type: 'device-opened', outcome: opened('culvert0') });
    t.match(application.pollEvent(), { type: 'device-opened' });
    t.match(application.pollCommand(), { type: 'listen', port: 51820 });

    application.handleResult({ type: 'listening', outcome: { ok: true, value: LISTENING } });
    t.match(application.pollEvent(), { type: 'listening' });
    t.match(application.pollEvent(), { type: 'peers-due' });
    t.match(application.pollCommand(), { type: 'apply-link', link: { name: 'culvert0' } });

    application.handleResult({ type: 'link-applied', changes: 0, failures: [] });
    t.match(application.pollEvent(), { type: 'finished', running: true, failures: [] });
  },
);

await t.test('what has not changed is not done again', async (t) => {
  const application = running();
  application.apply(target({ addresses: ['10.0.0.9/24'] }));
  t.match(application.pollEvent(), { type: 'peers-due' });
  t.match(application.pollCommand(), { type: 'apply-link' });
  t.equal(application.pollCommand(), undefined);
});

await t.test('a port that is taken leaves peers and link alone and names the value', async (t) => {
  const application = running();
  application.apply(target({ listenPort: 1234 }));
  t.match(application.pollCommand(), { type: 'listen', port: 1234 });
  application.handleResult({ type: 'listening', outcome: { ok: false, why: 'port-taken' } });
  t.match(application.pollEvent(), {
    type: 'finished',
    running: false,
    failures: [{ path: 'interface.listenPort', why: 'port-taken' }],
  });
  t.equal(application.pollCommand(), undefined);

  application.apply(target({}));
  t.match(application.pollEvent(), { type: 'peers-due' }, 'the old port is still bound');
});

await t.test('a device that moved before its port failed moves back', async (t) => {
  const application = running();
  application.apply(target({ name: 'culvert1', listenPort: 1234 }));
  t.match(application.pollCommand(), { type: 'open-device', name: 'culvert1' });
  application.handleResult({ type: 'device-opened', outcome: opened('culvert1') });
  t.match(application.pollCommand(), { type: 'listen', port: 1234 });
  application.handleResult({ type: 'listening', outcome: { ok: false, why: 'port-taken' } });
  t.match(application.pollCommand(), { type: 'open-device', name: 'culvert0' });
  application.handleResult({ type: 'device-opened', outcome: opened('culvert0') });
  t.match(application.pollCommand(), { type: 'apply-link', link: { name: 'culvert0' } });
});

await t.test('a device that cannot be opened names the value', async (t) => {
  const application = new Application();
  application.apply(target({}));
  application.pollCommand();
  application.handleResult({ type: 'device-opened', outcome: { ok: false, why: 'no-tun' } });
  t.match(application.pollEvent(), {
    type: 'finished',
    running: false,
    failures: [{ path: 'interface.name', why: 'no-tun' }],
  });
});

await t.test('an address that the kernel refuses is reported, and the rest runs', async (t) => {
  const application = running();
  application.apply(target({ addresses: ['10.0.0.9/24'] }));
  drain(application);
  const failure = { object: 'address 10.0.0.9/24', code: 'EINVAL', message: 'Invalid argument' };
  application.handleResult({ type: 'link-applied', changes: 0, failures: [failure] });
  t.match(application.pollEvent(), {
    type: 'finished',
    running: true,
    failures: [{ path: 'address 10.0.0.9/24', why: 'Invalid argument' }],
  });
});

await t.test('what runs is asserted again, but never in the way of a newer one', async (t) => {
  const application = running();
  application.assert();
  t.match(application.pollEvent(), { type: 'peers-due' });
  t.match(application.pollCommand(), { type: 'apply-link' });
  application.handleResult({ type: 'link-applied', changes: 0, failures: [] });
  drain(application);
  const newer = target({ listenPort: 1234 });
  application.apply(newer);
  application.assert();
  application.handleResult({ type: 'listening', outcome: { ok: true, value: LISTENING } });
  drain(application);
  application.handleResult({ type: 'link-applied', changes: 0, failures: [] });
  t.match(application.pollEvent(), { type: 'finished', target: newer });
  t.equal(application.pollCommand(), undefined);
  new Application().assert();
});

await t.test('of targets that arrive while one is applied only the newest follows', async (t) => {
  const application = running();
  application.apply(target({ mtu: 1300 }));
  application.apply(target({ mtu: 1301 }));
  application.apply(target({ mtu: 1302 }));
  drain(application);
  application.handleResult({ type: 'link-applied', changes: 0, failures: [] });
  t.match(application.pollEvent(), {
    type: 'finished',
    target: { configuration: { interface: { mtu: 1300 } } },
  });
  t.match(application.pollCommand(), { type: 'apply-link', link: { mtu: 1302 } });
});

await t.test('results that nobody asked for change nothing', async (t) => {
  const application = running();
  application.handleResult({ type: 'device-opened', outcome: opened('other0') });
  application.handleResult({ type: 'listening', outcome: { ok: false, why: 'refused' } });
  application.handleResult({ type: 'link-applied', changes: 0, failures: [] });
  t.equal(application.pollEvent(), undefined);
  t.equal(application.pollCommand(), undefined);
});

await t.test('the allowed IPs of all peers become routes, but for a default route', async (t) => {
  const link = wantedLink(
    configuration({ allowedIps: ['10.1.0.0/16', '0.0.0.0/0', 'fd00::/8', '::/0'] }),
  );
  t.same(link.routes.map(formatIpPrefix), ['10.1.0.0/16', 'fd00::/8']);
});

interface Wanted {
  readonly name?: string;
  readonly mtu?: number;
  readonly listenPort?: number;
  readonly addresses?: readonly string[];
  readonly allowedIps?: readonly string[];
}

function configuration({ allowedIps = ['10.0.1.0/24'], ...own }: Wanted): Configuration {
  const parsed = parseConfiguration({
    schema: 1,
    interface: { addresses: ['10.0.0.1/24'], ...own },
    peers: [{ id: 'b', publicKey: `${'A'.repeat(42)}E=`, allowedIps }],
  });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.errors));
  return parsed.value;
}

function target(wanted: Wanted): Target {
  return { configuration: configuration(wanted), version: undefined };
}

function opened(name: string) {
  return { ok: true, value: { name, offloads: OFFLOADS } } as const;
}

function running(): Application {
  const application = new Application();
  application.apply(target({}));
  application.handleResult({ type: 'device-opened', outcome: opened('culvert0') });
  application.handleResult({ type: 'listening', outcome: { ok: true, value: LISTENING } });
  application.handleResult({ type: 'link-applied', changes: 0, failures: [] });
  drain(application);
  return application;
}

function drain(application: Application): void {
  while (application.pollEvent() !== undefined);
  while (application.pollCommand() !== undefined);
}
