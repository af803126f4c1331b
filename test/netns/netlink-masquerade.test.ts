import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import t from 'tap';
import { parseIpPrefix } from '../../core/net/ip-prefix.ts';
import { masqueradeRuleset } from '../../core/nat/masquerade.ts';
import type { Native } from '../../core/plugin/native.ts';
import { createRuleset, Nftables } from '../../plugins/netlink/index.ts';
import { hostOf, inNamespace, loadSystemCalls, machine, run } from './netlink-namespace.ts';

/*
 *   peer 100.64.0.2 ---- culvert0 100.64.0.1 [ this process ] lan 10.1.0.1 ---- host 10.1.0.2
 *
 * The host has no route to the peer but the one to its default gateway, which is this process.
 */
const SOURCES = ['100.64.0.2/32', '100.64.8.0/24', '100.64.9.0/24', 'fd00:64::2/128'];

/** What a person would have written. */
const WRITTEN = `table inet culvert {
  set sources4 { type ipv4_addr; flags interval; elements = { 100.64.0.2, 100.64.8.0/24, 100.64.9.0/24 }; }
  set sources6 { type ipv6_addr; flags interval; elements = { fd00:64::2 }; }
  chain srcnat {
    type nat hook postrouting priority srcnat; policy accept;
    iifname "culvert0" oifname != "culvert0" ip saddr @sources4 masquerade
    iifname "culvert0" oifname != "culvert0" ip6 saddr @sources6 masquerade
  }
}`;

/** Answers with the address that the datagram came from. */
const ECHO = `
  for (const family of ['udp4', 'udp6']) {
    const socket = require('dgram').createSocket({ type: family, ipv6Only: family === 'udp6' });
    socket.on('message', (_, from) => socket.send(from.address, from.port, from.address));
    socket.bind(7, () => console.log('ready'));
  }`;

const ASK = `
  const [source, host] = process.argv.slice(1);
  const socket = require('dgram').createSocket(host.includes(':') ? 'udp6' : 'udp4');
  const done = (answer) => { console.log(String(answer)); process.exit(0) };
  setTimeout(() => done('nothing'), 3000);
  socket.on('message', done);
  socket.bind(0, source, () => socket.send('who am I', 7, host));`;

if (await inNamespace(import.meta.url)) await test(await loadSystemCalls());

async function test(calls: Native): Promise<void> {
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  writeFileSync('/proc/sys/net/ipv6/conf/all/forwarding', '1');
  const peer = await machine(
    'culvert0',
    ['100.64.0.1/24', 'fd00:64::1/64'],
    ['100.64.0.2/24', '100.64.0.3/24', 'fd00:64::2/64', 'fd00:64::3/64'],
    '100.64.0.1',
    'fd00:64::1',
  );
  const host = await machine(
    'lan',
    ['10.1.0.1/24', 'fd00:1::1/64'],
    ['10.1.0.2/24', 'fd00:1::2/64'],
    '10.1.0.1',
    'fd00:1::1',
  );
  const echo = spawn('nsenter', [...host.enter, process.execPath, '-e', ECHO], {
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  await once(echo.stdout, 'data');
  const ask = (source: string, to: string) =>
    run('nsenter', ...peer.enter, process.execPath, '-e', ASK, source, to).trim();
  const plugin = createRuleset().create(hostOf(calls));
  if ('skip' in plugin) throw new Error(plugin.skip);
  const apply = (isOn: boolean) => plugin.api.apply(wanted(isOn));

  await t.test('hides peers behind the address of this machine in the LAN', async (t) => {
    t.equal(ask('100.64.0.2', '10.1.0.2'), '100.64.0.2', 'before');
    t.match(apply(true), { ok: true, failures: [] });
    t.equal(ask('100.64.0.2', '10.1.0.2'), '10.1.0.1');
    t.equal(ask('fd00:64::2', 'fd00:1::2'), 'fd00:1::1');
  });

  await t.test('leaves other sources alone, and what comes by other links', async (t) => {
    t.equal(ask('100.64.0.3', '10.1.0.2'), '100.64.0.3');
    t.equal(ask('fd00:64::3', 'fd00:1::2'), 'fd00:64::3');
    const own = createSocket('udp4');
    const answered = once(own, 'message');
    await new Promise<void>((resolve) => own.bind(0, '100.64.0.1', resolve));
    own.send('who am I', 7, '10.1.0.2');
    t.equal(String((await answered)[0]), '100.64.0.1', 'nor what this machine sends');
    own.close();
  });

  await t.test('is what nft makes of the same words', async (t) => {
    const reader = Nftables.open(calls);
    if (!reader.ok) throw new Error(reader.refusal.message);
    const table = { family: 'inet', name: 'culvert' } as const;
    const seen = () => {
      const sets = reader.value.readSets(table);
      const rules = reader.value.readRules(table);
      const chains = reader.value.readChains(table);
      if (!sets.ok || !rules.ok || !chains.ok) throw new Error('not read');
      return {
        // But for the comments by which we know our rules again.
        listed: run('nft', 'list', 'table', 'inet', 'culvert').replace(/ comment "#\w+"/g, ''),
        chains: chains.value,
        sets: sets.value.map((set) => ({
          ...set,
          elements: reader.value.readElements(table, set),
        })),
        rules: rules.value.map(({ expressions }) => expressions),
      };
    };
    const ours = seen();
    run('nft', 'delete', 'table', 'inet', 'culvert');
    run('nft', WRITTEN);
    t.strictSame(seen(), ours);
    reader.value.close();
  });

  await t.test('goes away when it is off, and other tables stay', async (t) => {
    run('nft', 'add', 'table', 'inet', 'fw4');
    t.match(apply(true), { ok: true });
    t.match(apply(false), { ok: true, value: { changes: 1 } });
    t.equal(run('nft', 'list', 'tables').trim(), 'table inet fw4');
    t.match(apply(false), { ok: true, value: { changes: 0 } });
    t.equal(ask('100.64.0.2', '10.1.0.2'), '100.64.0.2');
  });

  await t.test('finds after a restart what is there, and changes one source', async (t) => {
    apply(true);
    const restarted = createRuleset().create(hostOf(calls));
    if ('skip' in restarted) throw new Error(restarted.skip);
    t.match(restarted.api.apply(wanted(true)), { ok: true, value: { changes: 0 } });
    const more = wanted(true, [...SOURCES, '100.64.0.3/32']);
    t.match(restarted.api.apply(more), { ok: true, value: { changes: 1 } });
    t.equal(ask('100.64.0.3', '10.1.0.2'), '10.1.0.1');
    await restarted.stop();
  });

  await plugin.stop();
  echo.kill();
  peer.stop();
  host.stop();
}

function wanted(isOn: boolean, sources: readonly string[] = SOURCES) {
  const prefixes = sources.map((text) => {
    const parsed = parseIpPrefix(text);
    if (!parsed.ok) throw new Error(text);
    return parsed.value;
  });
  return masqueradeRuleset({ device: 'culvert0', sources: prefixes, isOn });
}
