import { once } from 'node:events';
import { createServer } from 'node:net';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { encodeNegative } from '../../../core/dns/answer.ts';
import { decodeQuery } from '../../../core/dns/message.ts';
import type { DomainName } from '../../../core/dns/name.ts';
import { RCODE } from '../../../core/dns/numbers.ts';
import type { IpAddress } from '../../../core/net/ip-address.ts';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import type { Connection } from '../../../core/netlink/conntrack/connection.ts';
import type { WantedInterception } from '../../../core/plugin/dns-interception.ts';
import type { PluginDefinition, PluginHost } from '../../../core/plugin/plugin.ts';
import { ruleset, type Ruleset } from '../../../core/plugin/ruleset.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { createDnsInterception, type DnsmasqPlace } from '../../../plugins/dns-intercept/index.ts';
import { confDirsOf } from '../../../plugins/dns-intercept/openwrt.ts';
import { createDnsListener } from '../../../plugins/dns-listener/index.ts';
import {
  createMemoryConntrack,
  createMemoryRuleset,
  MemoryConnections,
  MemoryTables,
} from '../../../plugins/netlink/index.ts';

const CONNECTIONS = [
  connection(17, 53),
  connection(6, 53),
  connection(17, 5353),
] as const satisfies readonly Connection[];

const TABLE = { family: 'inet', name: 'culvert_dns' } as const;

await t.test('redirection', async (t) => {
  await t.test('goes in once the listener answers, for both families and protocols', async (t) => {
    const { api, tables, port } = await scene(t);
    t.equal(await api.apply(redirect(port)), undefined);
    t.equal(rulesOf(tables)?.length, 4);
  });

  await t.test('leaves the LAN alone where nobody answers', async (t) => {
    const { api, tables, port } = await scene(t);
    const detail = `nobody answers at ${port + 1} on: lo`;
    t.same(await api.apply(redirect(port + 1)), { why: 'no-answer', detail });
    t.equal(tables.read(TABLE), undefined);
    t.equal(await api.apply(redirect(port)), undefined);
    t.equal(rulesOf(tables)?.length, 4);
  });

  await t.test('is taken away at once where nobody answers any more', async (t) => {
    const { api, tables, connections, listener, port } = await scene(t);
    await api.apply(redirect(port));
    for (const one of CONNECTIONS) connections.put(one);
    await listener.api.listen({ port, interfaces: [], addresses: [] });
    t.match(await api.apply(redirect(port)), { why: 'no-answer' });
    t.equal(tables.read(TABLE), undefined);
    t.equal(connections.all.length, 1, 'clients go back to whom they asked');
  });

  await t.test('is taken away where its interface has no addresses any more', async (t) => {
    const { api, tables, port } = await scene(t);
    await api.apply(redirect(port));
    t.match(await api.apply(redirect(port, 'nowhere')), { why: 'no-answer' });
    t.equal(tables.read(TABLE), undefined);
  });

  await t.test('leaves out the family of an interface that is not answered', async (t) => {
    const { api, tables, listener, port, debugLines } = await scene(t);
    await api.apply(redirect(port));
    for (const [host, family] of [
      // As while the IPv6 addresses are tentative.
      ['127.0.0.1', 6],
      ['[::1]', 4],
    ] as const) {
      const addresses = [`${host}:${port}` as SocketAddress];
      t.strictSame(await listener.api.listen({ port, interfaces: [], addresses }), []);
      t.equal(await api.apply(redirect(port, 'lo', 'nowhere')), undefined);
      t.equal(rulesOf(tables)?.length, 2);
      const line = ['nobody answers there: not redirected', { interface: 'lo', family }];
      t.strictSame(debugLines.splice(0), [line]);
    }
    await listener.api.listen({ port, interfaces: ['lo'], addresses: [] });
    t.equal(await api.apply(redirect(port)), undefined);
    t.equal(rulesOf(tables)?.length, 4, 'once it is answered it comes back');
  });

  await t.test('is taken away where the kernel refuses what is to come after it', async (t) => {
    let isRefusing = false;
    const cleared: unknown[] = [];
    const { api, port } = await scene(t, {
      ruleset: {
        apply: (wanted) =>
          isRefusing
            ? { ok: false, why: 'refused', failures: [] }
            : { ok: true, value: { changes: wanted.length }, failures: [] },
        clear: (tables) => void cleared.push(...tables),
        monitor: () => () => undefined,
      },
    });
    t.equal(await api.apply(redirect(port)), undefined);
    isRefusing = true;
    t.match(await api.apply(redirect(port)), { why: 'refused' });
    t.strictSame(cleared, [TABLE]);
  });

  await t.test('refuses interfaces without addresses', async (t) => {
    const { api, tables, port } = await scene(t);
    t.match(await api.apply(redirect(port, 'nowhere')), { why: 'no-answer', detail: /nowhere/ });
    t.equal(tables.read(TABLE), undefined);
  });

  await t.test('forgets connections to port 53 whenever it changes, and only then', async (t) => {
    const { api, connections, port } = await scene(t);
    const left = async (wanted: WantedInterception) => {
      for (const one of CONNECTIONS) connections.put(one);
      await api.apply(wanted);
      return connections.all.length;
    };
    t.equal(await left({ type: 'off' }), 3, 'it was off');
    t.equal(await left(redirect(port)), 1, 'on');
    t.equal(await left(redirect(port)), 3, 'it was on');
    t.equal(await left({ type: 'off' }), 1, 'off');
  });

  await t.test('is put back when another program takes it away', async (t) => {
    const { api, tables, port, connections } = await scene(t);
    await api.apply(redirect(port));
    for (const one of CONNECTIONS) connections.put(one);
    tables.flush();
    for (let turn = 0; turn < 8; turn++) await new Promise((resolve) => setImmediate(resolve));
    t.equal(rulesOf(tables)?.length, 4);
    t.equal(connections.all.length, 1);

    await api.apply({ type: 'off' });
    tables.flush();
    for (let turn = 0; turn < 8; turn++) await new Promise((resolve) => setImmediate(resolve));
    t.equal(tables.read(TABLE), undefined, 'but not when it is off');
  });

  await t.test('the last of several calls decides', async (t) => {
    const { api, tables, port } = await scene(t);
    await Promise.all([
      api.apply(redirect(port)),
      api.apply({ type: 'off' }),
      api.apply(redirect(port)),
      api.apply({ type: 'off' }),
    ]);
    t.equal(tables.read(TABLE), undefined);
  });

  await t.test('names the cure where the kernel has no owner flag', async (t) => {
    const failures = [
      { object: 'table inet culvert_dns', code: 'EINVAL', message: 'Invalid argument' },
    ];
    const { api, port } = await scene(t, {
      ruleset: {
        apply: () => ({ ok: false, why: 'refused', failures }),
        clear: () => undefined,
        monitor: () => () => undefined,
      },
    });
    t.match(await api.apply(redirect(port)), {
      why: 'refused',
      detail: /Linux 5\.12 or newer: use dnsmasq/,
    });
  });
});

await t.test('dnsmasq', async (t) => {
  await t.test(
    'is told by a file and a restart, and left alone when nothing changed',
    async (t) => {
      const { api, port, place, restarts } = await scene(t);
      const wanted = dnsmasq(port, 'corp.example');
      t.equal(await api.apply(wanted), undefined);
      for (const directory of place.confDirs) {
        t.strictSame(readdirSync(directory), ['culvert.conf'], 'and nothing else');
        const text = readFileSync(join(directory, 'culvert.conf'), 'utf8');
        t.match(text, `server=/corp.example/127.0.0.1#${port}\n`);
      }
      t.equal(restarts(), 1);
      t.equal(await api.apply(wanted), undefined);
      t.equal(restarts(), 1);
      t.equal(await api.apply(dnsmasq(port)), undefined, 'no zones');
      t.strictSame(
        place.confDirs.flatMap((directory) => readdirSync(directory)),
        [],
      );
      t.equal(restarts(), 2);
    },
  );

  await t.test('loses what a crash left, in whatever mode comes next', async (t) => {
    const { api, port, place, restarts } = await scene(t);
    for (const wanted of [{ type: 'off' }, redirect(port)] as const) {
      for (const directory of place.confDirs) writeFileSync(join(directory, 'culvert.conf'), 'x');
      t.equal(await api.apply(wanted), undefined);
      t.strictSame(
        place.confDirs.flatMap((directory) => readdirSync(directory)),
        [],
      );
    }
    t.equal(restarts(), 2);
  });

  await t.test('is restarted where a crash came between the change and the restart', async (t) => {
    const { api, port, place, restarts } = await scene(t);
    const wanted = dnsmasq(port, 'corp.example');
    await api.apply(wanted);
    writeFileSync(join(place.confDirs[0], '.culvert.unfinished'), '');
    t.equal(await api.apply(wanted), undefined);
    t.equal(restarts(), 2);
    t.equal(await api.apply(wanted), undefined);
    t.equal(restarts(), 2);
  });

  await t.test('ends the redirection that was before', async (t) => {
    const { api, port, tables } = await scene(t);
    await api.apply(redirect(port));
    t.equal(await api.apply(dnsmasq(port, 'corp.example')), undefined);
    t.equal(tables.read(TABLE), undefined);
  });

  await t.test('is not told of a server that does not answer', async (t) => {
    const { api, port, restarts } = await scene(t);
    t.match(await api.apply(dnsmasq(port + 1, 'corp.example')), { why: 'no-answer' });
    t.equal(restarts(), 0);
  });

  await t.test('ends the redirection also where it does not come itself', async (t) => {
    const { api, port, tables } = await scene(t, { dnsmasq: undefined });
    for (const [at, why] of [
      [port, 'no-dnsmasq'],
      [port + 1, 'no-answer'],
    ] as const) {
      await api.apply(redirect(port));
      t.match(await api.apply(dnsmasq(at, 'corp.example')), { why });
      t.equal(tables.read(TABLE), undefined, why);
    }
  });

  await t.test('loses our zones also where no redirection comes after it', async (t) => {
    const { api, port, place } = await scene(t);
    await api.apply(dnsmasq(port, 'corp.example'));
    t.match(await api.apply(redirect(port + 1)), { why: 'no-answer' });
    t.notOk(place.confDirs.some((directory) => existsSync(join(directory, 'culvert.conf'))));
  });

  await t.test('gets back what it had when it does not restart', async (t) => {
    const { api, port, place, restarts } = await scene(t, {
      restart: 'echo no such luck >&2; exit 1',
    });
    t.match(await api.apply(dnsmasq(port, 'corp.example')), {
      why: 'refused',
      detail: /no such luck/,
    });
    t.notOk(place.confDirs.some((directory) => existsSync(join(directory, 'culvert.conf'))));
    t.equal(restarts(), 2, 'it was started again without us');
  });

  await t.test('says what is missing', async (t) => {
    const nowhere = await scene(t, { dnsmasq: undefined });
    const wanted = dnsmasq(nowhere.port, 'corp.example');
    t.match(await nowhere.api.apply(wanted), { why: 'no-dnsmasq', detail: /use redirect/ });
    t.equal(await nowhere.api.apply({ type: 'off' }), undefined);

    const notDirectory = join(new URL(import.meta.url).pathname, 'x');
    const place: DnsmasqPlace = { confDirs: [notDirectory], restart: ['true'] };
    const broken = await scene(t, { dnsmasq: place });
    t.match(await broken.api.apply(dnsmasq(broken.port, 'corp.example')), {
      why: 'refused',
      detail: /ENOTDIR/,
    });
  });

  await t.test('is found on OpenWrt, each instance with its own conf-dir', async (t) => {
    const shown = [
      'dhcp.cfg01411c=dnsmasq',
      "dhcp.cfg01411c.domainneeded='1'",
      "dhcp.cfg01411c.rebind_protection='1'",
      'dhcp.lan=dhcp',
      "dhcp.lan.interface='lan'",
      'dhcp.guest=dnsmasq',
      "dhcp.guest.confdir='/tmp/guest.d,*.conf'",
    ];
    t.strictSame(confDirsOf(shown.join('\n')), ['/tmp/dnsmasq.cfg01411c.d', '/tmp/guest.d']);
    t.strictSame(confDirsOf("dhcp.lan=dhcp\ndhcp.lan.confdir='/x'"), []);
  });
});

await t.test('a stop takes everything back', async (t) => {
  const { api, plugin, tables, port, place, restarts } = await scene(t);
  await api.apply(redirect(port));
  await plugin.stop();
  t.equal(tables.read(TABLE), undefined);
  await api.apply(dnsmasq(port, 'corp.example'));
  await plugin.stop();
  t.notOk(existsSync(join(place.confDirs[0] ?? '', 'culvert.conf')));
  t.equal(restarts(), 2);
});

function redirect(port: number, ...interfaces: readonly string[]): WantedInterception {
  return { type: 'redirect', interfaces: interfaces.length > 0 ? interfaces : ['lo'], port };
}

function dnsmasq(port: number, ...zones: readonly string[]): WantedInterception {
  const server = `127.0.0.1:${port}` as SocketAddress;
  return { type: 'dnsmasq', zones: zones as readonly DomainName[], server };
}

function connection(protocol: number, destinationPort: number): Connection {
  const [source, destination] = ['192.168.1.50', '8.8.8.8'] as IpAddress[] as [
    IpAddress,
    IpAddress,
  ];
  const original = { source, destination, protocol, sourcePort: 40_000, destinationPort };
  const reply = {
    source: destination,
    destination: source,
    protocol,
    sourcePort: destinationPort,
    destinationPort: 40_000,
  };
  return { original, reply, mark: 0, zone: 0 } as unknown as Connection;
}

function rulesOf(tables: MemoryTables) {
  return tables.read(TABLE)?.chains.get('lan');
}

interface SceneOptions {
  readonly ruleset?: Ruleset;
  readonly dnsmasq?: DnsmasqPlace | undefined;
  /** What the restart does, for a shell. */
  readonly restart?: string;
}

/** The plugin with a kernel in memory, a real listener on loopback and a dnsmasq that only counts. */
async function scene(t: Test, options: SceneOptions = {}) {
  const tables = new MemoryTables();
  const connections = new MemoryConnections();
  const directory = t.testdir({ a: {}, b: {} });
  const log = join(directory, 'restarts');
  const script = join(directory, 'restart');
  writeFileSync(script, `#!/bin/sh\necho >> ${log}\n${options.restart ?? ''}\n`, { mode: 0o755 });
  const place = {
    confDirs: [join(directory, 'a'), join(directory, 'b')],
    restart: [script],
  } as const;
  for (const one of place.confDirs) mkdirSync(one, { recursive: true });

  const debugLines: unknown[] = [];
  const made = new Map<string, unknown>();
  const start = <Api>(definition: PluginDefinition<Api>) => {
    const plugin = definition.create({
      log: { ...nullLog, debug: (...line: unknown[]) => void debugLines.push(line) },
      clock: { soon: (onYield: () => void) => void setImmediate(onYield) },
      use: ({ name }: { readonly name: string }) => made.get(name),
    } as unknown as PluginHost);
    if ('skip' in plugin) throw new Error(plugin.skip);
    made.set(definition.provides.name, plugin.api);
    t.teardown(() => plugin.stop());
    return plugin;
  };
  start(createMemoryRuleset(tables));
  if (options.ruleset !== undefined) made.set(ruleset.name, options.ruleset);
  start(createMemoryConntrack(connections));
  const listener = start(createDnsListener());
  listener.api.listenTo(({ client, bytes }) => {
    const query = decodeQuery(bytes);
    if (query.ok) listener.api.respond(client, encodeNegative(query.value, RCODE.NXDOMAIN, 1));
  });
  const port = await freePort();
  t.strictSame(await listener.api.listen({ port, interfaces: ['lo'], addresses: [] }), []);

  const told = 'dnsmasq' in options ? options.dnsmasq : place;
  const plugin = start(createDnsInterception(told === undefined ? {} : { dnsmasq: told }));
  const restarts = () => (existsSync(log) ? readFileSync(log, 'utf8').length : 0);
  const { api } = plugin;
  return { api, plugin, tables, connections, listener, port, place, restarts, debugLines };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '::');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}
