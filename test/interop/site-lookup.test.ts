/**
 * Names are looked up at a real dnsmasq, whose hosts file is the one that is read here: both are to come
 * to the same addresses.
 */
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import t from 'tap';
import type { DnsTransmit } from '../../core/dns/forwarder.ts';
import { parseHosts } from '../../core/dns/hosts.ts';
import { Resolver } from '../../core/dns/resolver.ts';
import { SiteLookup } from '../../core/dns/site-lookup.ts';
import { UpstreamRules } from '../../core/dns/upstream-rules.ts';
import { instantAt, type Instant } from '../../core/sansio/instant.ts';
import { nameOf, pool, realRandom, resources, type TestResource } from '../core/dns/messages.ts';

const HOSTS = [
  '# of the site',
  '10.0.0.1\tDB.site.example db.other.site.example # both',
  'fd00::1   db.site.example',
  '10.0.0.300 none.site.example',
  '10.0.0.2 ..site.example ok.site.example',
  '127.0.0.1 gateway.site.example',
  ...Array.from({ length: 60 }, (_, i) => `10.1.0.${i + 1} many.site.example`),
].join('\n');

const DNSMASQ = '/usr/sbin/dnsmasq';
const present = existsSync(DNSMASQ) ? {} : { skip: 'dnsmasq is not installed' };
const port = await freePort();
const transports = new Set<string>();
if (existsSync(DNSMASQ)) await startDnsmasq();

await t.test(
  'every name of the hosts file has the addresses that dnsmasq says',
  present,
  async (t) => {
    const hosts = parseHosts([HOSTS]);
    t.same(
      [...hosts.keys()],
      [
        'db.site.example',
        'db.other.site.example',
        'ok.site.example',
        'gateway.site.example',
        'many.site.example',
      ],
    );
    for (const name of hosts.keys()) {
      transports.clear();
      const [said, read] = [await resolve(name), await resolve(name, HOSTS)];
      t.same([said].flat().sort(), [read].flat().sort(), name);
      t.equal(transports.has('tcp'), name === 'many.site.example', `${name} over TCP`);
    }
  },
);

await t.test(
  'aliases, names that are none, and names that dnsmasq may not answer',
  present,
  async (t) => {
    t.same(await resolve('a.site.example'), ['10.0.0.1', 'fd00::1']);
    t.same(await resolve('none.site.example'), []);
    t.equal(await resolve('www.example'), 'no-answer', 'REFUSED: it has no servers');
  },
);

async function startDnsmasq(): Promise<void> {
  const top = mkdtempSync(join(tmpdir(), 'culvert-dnsmasq-'));
  writeFileSync(join(top, 'hosts'), `${HOSTS}\n`);
  const dnsmasq = spawn(DNSMASQ, [
    '--keep-in-foreground',
    '--user=root',
    '--pid-file=',
    '--conf-file=/dev/null',
    '--no-resolv',
    '--no-hosts',
    '--bind-interfaces',
    '--listen-address=127.0.0.1',
    `--port=${port}`,
    `--addn-hosts=${join(top, 'hosts')}`,
    '--local=/site.example/',
    '--cname=a.site.example,b.site.example',
    '--cname=b.site.example,db.site.example',
  ]);
  t.teardown(() => {
    dnsmasq.kill();
    rmSync(top, { recursive: true });
  });
  for (let tries = 0; (await resolve('db.site.example')) === 'no-answer'; tries++) {
    if (tries > 10) throw new Error('dnsmasq does not answer');
  }
}

/** One lookup at dnsmasq, or at the hosts file where there is one. */
async function resolve(name: string, hosts = ''): Promise<readonly string[] | string> {
  const now = (): Instant => instantAt(performance.now());
  const rules = new UpstreamRules([], 'site');
  const resolver = new Resolver<TestResource>(
    { resources: resources({}), rules, siteRules: rules },
    { pool: pool(), random: realRandom },
    now(),
  );
  const upstreams = [{ id: `127.0.0.1:${port}`, protocol: 'plain' as const }];
  resolver.setGroup('site', { upstreams, isCached: false });
  const lookup = new SiteLookup();
  lookup.setHosts(parseHosts([hosts]));
  lookup.lookUp(nameOf(name), now());
  for (const start = now(); now() - start < 15_000; await wait(2)) {
    lookup.handleTimeout(now());
    resolver.handleTimeout(now());
    for (let one; (one = lookup.pollQuestion()) !== undefined;) {
      resolver.ask(one.client, one.bytes, now());
    }
    for (let one; (one = resolver.pollTransmit()) !== undefined;) {
      const { transport, port: from, upstream } = one;
      transports.add(transport);
      (transport === 'udp' ? overUdp : overTcp)(one, (bytes) =>
        resolver.handleAnswer({ upstream: upstream.id, transport, port: from, bytes }, now()),
      );
    }
    for (let event; (event = resolver.pollEvent()) !== undefined;) {
      if (event.type === 'response') lookup.handleAnswer(event.client, event.bytes, now());
    }
    const event = lookup.pollEvent();
    if (event !== undefined) return event.outcome.ok ? event.outcome.value : event.outcome.why;
  }
  throw new Error('no event');
}

function overUdp({ bytes }: DnsTransmit, onAnswer: (bytes: Uint8Array) => void): void {
  const socket = createSocket('udp4').unref();
  socket.on('error', () => socket.close());
  socket.on('message', (answer) => {
    onAnswer(answer);
    socket.close();
  });
  socket.send(bytes, port, '127.0.0.1');
}

function overTcp({ bytes }: DnsTransmit, onAnswer: (bytes: Uint8Array) => void): void {
  const socket = connect(port, '127.0.0.1', () =>
    socket.write(Uint8Array.of(bytes.length >> 8, bytes.length & 255, ...bytes)),
  );
  let received = Buffer.alloc(0);
  socket.on('error', () => socket.destroy());
  socket.on('data', (data) => {
    received = Buffer.concat([received, data]);
    if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
    onAnswer(received.subarray(2));
    socket.destroy();
  });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((listening) => server.once('listening', listening));
  const { port: free } = server.address() as AddressInfo;
  await new Promise((closed) => server.close(closed));
  return free;
}
