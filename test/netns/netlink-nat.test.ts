import { execFile, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import t from 'tap';
import { Priority } from '../../core/netlink/nftables/chain.ts';
import { concatenate, serviceData } from '../../core/netlink/nftables/data-type.ts';
import {
  destinationPort,
  field,
  inputInterface,
  isFamily,
  isProtocol,
  outputInterface,
  Protocol,
  sourcePort,
  transportBytes,
} from '../../core/netlink/nftables/match.ts';
import {
  masquerade,
  natByMap,
  notrack,
  prefixNatByMap,
  redirectTo,
  rule,
  setUdpPort,
} from '../../core/netlink/nftables/statement.ts';
import type { WantedTable } from '../../core/netlink/nftables/wanted-ruleset.ts';
import type { Native } from '../../core/plugin/native.ts';
import { createConntrack, createRuleset } from '../../plugins/netlink/index.ts';
import { hostOf, inNamespace, loadSystemCalls, machine } from './netlink-namespace.ts';
import { address, prefix, range } from './nftables-rules.ts';

/*
 *   client 10.1.0.2 ---- lan 10.1.0.1 [ this process ] wan 10.2.0.1 ---- server 10.2.0.2
 */
const { tcp, udp } = Protocol;

/** As of DESIGN: datagrams of STUN to the port of WireGuard go to another one, and back. */
const STUN = [
  transportBytes(8, Uint8Array.of(2), '<'),
  transportBytes(12, Uint8Array.of(0x21, 0x12, 0xa4, 0x42)),
  notrack,
].flat();

const WANTED: WantedTable = {
  family: 'inet',
  name: 'culvert',
  sets: [
    {
      name: 'proxies',
      key: ['ipv4_addr', 'inet_service'],
      value: { type: 'data', fields: ['ipv4_addr', 'inet_service'] },
      elements: [
        {
          key: concatenate(address('100.96.0.1'), serviceData(80)),
          value: concatenate(address('10.2.0.2'), serviceData(8080)),
        },
      ],
    },
    {
      name: 'sites',
      key: ['ipv4_addr'],
      isInterval: true,
      value: { type: 'data', fields: ['ipv4_addr'], isRange: true },
      elements: [
        {
          ...range('10.99.0.0/24'),
          value: concatenate(address('10.2.0.0'), address('10.2.0.255')),
        },
      ],
    },
  ],
  chains: [
    {
      name: 'raw',
      base: { type: 'filter', hook: 'prerouting', priority: Priority.raw },
      rules: [rule(destinationPort(udp, 51820), STUN, setUdpPort('destination', 3478))],
    },
    {
      name: 'rawOut',
      base: { type: 'filter', hook: 'output', priority: Priority.raw },
      rules: [rule(sourcePort(udp, 3478), STUN, setUdpPort('source', 51820))],
    },
    {
      name: 'in',
      base: { type: 'nat', hook: 'prerouting', priority: Priority.destinationNat - 5 },
      rules: [
        rule(inputInterface('lan'), destinationPort(udp, 53), redirectTo(5353)),
        rule(
          isFamily(4),
          isProtocol(tcp),
          natByMap(
            'dnat',
            4,
            'proxies',
            [field.ipDestination, field.destinationPort],
            'address-and-port',
          ),
        ),
        rule(isFamily(4), prefixNatByMap('dnat', 4, 'sites', [field.ipDestination])),
      ],
    },
    {
      name: 'out',
      base: { type: 'nat', hook: 'postrouting', priority: Priority.sourceNat },
      rules: [rule(outputInterface('wan'), masquerade())],
    },
  ],
};

const ASK = `
  const [protocol, host, port, text] = process.argv.slice(1);
  const done = (answer) => { console.log(String(answer)); process.exit(0) };
  setTimeout(() => done('nothing'), 3000);
  if (protocol === 'tcp') require('net').connect(port, host).on('data', done).on('error', done);
  else {
    const socket = require('dgram').createSocket('udp4');
    socket.on('message', (answer, from) => done(answer + ' from ' + from.address + ':' + from.port));
    socket.send(Buffer.from(text, 'hex'), port, host);
  }`;

const SERVE = `
  const answer = (socket) => socket.end('you are ' + socket.remoteAddress);
  require('net').createServer(answer).listen(8080, '10.2.0.2', () => console.log('ready'));`;

if (await inNamespace(import.meta.url)) await test(await loadSystemCalls());

async function test(calls: Native): Promise<void> {
  const client = await machine('lan', ['10.1.0.1/24'], ['10.1.0.2/24'], '10.1.0.1');
  const server = await machine('wan', ['10.2.0.1/24'], ['10.2.0.2/24']);
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  const ask = async (protocol: string, host: string, port: number, bytes = '00') => {
    const node = [process.execPath, '-e', ASK, protocol, host, String(port), bytes];
    const { stdout } = await promisify(execFile)('nsenter', [...client.enter, ...node]);
    return stdout.trim();
  };
  const plugin = createRuleset().create(hostOf(calls));
  const connections = createConntrack().create(hostOf(calls));
  if ('skip' in plugin) throw new Error(plugin.skip);
  if ('skip' in connections) throw new Error(connections.skip);
  const service = spawn('nsenter', [...server.enter, process.execPath, '-e', SERVE]);
  await once(service.stdout, 'data');
  t.match(plugin.api.apply([WANTED]), { ok: true, failures: [] });

  await t.test('redirects queries to any resolver to its own', async (t) => {
    const listener = createSocket('udp4');
    listener.on('message', (_, from) => listener.send('mine', from.port, from.address));
    await new Promise<void>((resolve) => listener.bind(5353, '10.1.0.1', resolve));
    t.equal(await ask('udp', '8.8.8.8', 53), 'mine from 8.8.8.8:53');
    const filter = { protocol: udp, original: { destinationPort: 53 } };
    t.match(connections.api.dump(filter), {
      ok: true,
      value: [
        { original: { destination: '8.8.8.8' }, reply: { source: '10.1.0.1', sourcePort: 5353 } },
      ],
    });
    t.strictSame(connections.api.removeAll(filter), { ok: true, value: { removed: 1 } });
    listener.close();
  });

  await t.test('leads a proxy address to the server, in its own name', async (t) => {
    t.equal(await ask('tcp', '100.96.0.1', 80), 'you are 10.2.0.1');
    const [connection] = resultOf(connections.api.dump({ protocol: tcp }));
    t.match(connection, {
      original: { source: '10.1.0.2', destination: '100.96.0.1', destinationPort: 80 },
      reply: { source: '10.2.0.2', sourcePort: 8080, destination: '10.2.0.1' },
    });
  });

  await t.test('translates a whole prefix and keeps the host', async (t) => {
    t.equal(await ask('tcp', '10.99.0.2', 8080), 'you are 10.2.0.1');
    const filter = { original: { destination: prefix('10.99.0.2/32') } };
    t.match(connections.api.dump(filter), { ok: true, value: [{ reply: { source: '10.2.0.2' } }] });
  });

  await t.test('splits STUN from WireGuard on one port', async (t) => {
    const wireguard = createSocket('udp4');
    const stun = createSocket('udp4');
    wireguard.on('message', (_, from) => wireguard.send('wireguard', from.port, from.address));
    const answer = Buffer.from('010100002112a442000000000000000000000000', 'hex');
    stun.on('message', (_, from) => stun.send(answer, from.port, from.address));
    await new Promise<void>((resolve) => wireguard.bind(51820, '10.1.0.1', resolve));
    await new Promise<void>((resolve) => stun.bind(3478, '10.1.0.1', resolve));
    t.match(
      await ask('udp', '10.1.0.1', 51820, '0400000001020304'),
      'wireguard from 10.1.0.1:51820',
    );
    const binding = '000100002112a442000000000000000000000000';
    t.match(await ask('udp', '10.1.0.1', 51820, binding), /!.* from 10\.1\.0\.1:51820$/s);
    wireguard.close();
    stun.close();
  });

  plugin.api.clear([WANTED]);
  await plugin.stop();
  await connections.stop();
  service.kill();
  client.stop();
  server.stop();
}

function resultOf<Value>(outcome: { ok: true; value: Value } | { ok: false; why: string }): Value {
  if (!outcome.ok) throw new Error(outcome.why);
  return outcome.value;
}
