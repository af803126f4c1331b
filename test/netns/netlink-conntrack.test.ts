import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import t from 'tap';
import { ConnectionStatus } from '../../core/netlink/conntrack/connection.ts';
import type { Native } from '../../core/plugin/native.ts';
import { createConntrack } from '../../plugins/netlink/index.ts';
import { conntrackContract, type ConntrackWorld } from '../contract/conntrack.ts';
import { hostOf, inNamespace, loadSystemCalls, turns } from './netlink-namespace.ts';
import { ip } from './nftables-rules.ts';

if (await inNamespace(import.meta.url)) await test(await loadSystemCalls());

async function test(calls: Native): Promise<void> {
  await conntrackContract(t, async () => kernelWorld(calls));

  await t.test('shows what conntrack shows', async (t) => {
    const plugin = open(calls);
    writeFileSync('/proc/sys/net/netfilter/nf_conntrack_acct', '1');
    const tcp = '-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1000 --dport 80 -t 100 --state ESTABLISHED';
    create(`${tcp} -n 192.0.2.1 -u ASSURED -m 5`);
    create('-p icmpv6 -s fd00::1 -d fd00::2 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 7 -t 50');
    create('-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 -t 50 -w 9');
    const read = plugin.api.dump({});
    if (!read.ok) throw new Error(read.why);
    const [first, ...others] = read.value.toSorted(
      (a, b) => a.original.protocol - b.original.protocol,
    );
    t.match(first, {
      original: { source: '10.0.0.1', destination: '10.0.0.2', sourcePort: 1000 },
      reply: { source: '10.0.0.2', destination: '192.0.2.1', destinationPort: 1000 },
      mark: 5,
      zone: 0,
      tcpState: 'established',
      sent: { packets: 0, bytes: 0 },
      received: { packets: 0, bytes: 0 },
    });
    t.ok(first!.status & ConnectionStatus.assured && first!.status & ConnectionStatus.sourceNat);
    t.ok(first!.timeoutSeconds! > 90 && first!.timeoutSeconds! <= 100);
    t.match(others, [
      { zone: 9, original: { protocol: 17 } },
      {
        original: { source: 'fd00::1', icmp: { id: 7, type: 128, code: 0 } },
        reply: { icmp: { id: 7, type: 129, code: 0 } },
      },
    ]);
    t.match(plugin.api.remove(others[0]!.original, 9), { value: { removed: 1 } });
    t.match(plugin.api.remove(others[1]!.original), { value: { removed: 1 } });
    plugin.api.removeAll({});
    await plugin.stop();
  });

  await t.test('says when events were lost', async (t) => {
    const plugin = createConntrack({ monitorBuffer: 1 }).create(hostOf(calls));
    if ('skip' in plugin) throw new Error(plugin.skip);
    let [events, lost] = [0, 0];
    const end = plugin.api.monitor({ onEvent: () => events++, onLost: () => lost++ });
    for (let port = 1; port <= 40; port++) {
      create(`-p udp -s 10.0.0.1 -d 10.0.0.2 --sport ${port} --dport 2 -t 50`);
    }
    t.match(plugin.api.removeAll({ protocol: 17 }), { ok: true, value: { removed: 40 } });
    await turns();
    t.ok(lost > 0, `${events} events came`);
    end();
    await plugin.stop();
    t.match(plugin.api.dump({}), { ok: false, why: 'refused' }, 'after its end it reads nothing');
    t.match(
      plugin.api.remove({ source: ip('10.0.0.1'), destination: ip('10.0.0.2'), protocol: 1 }),
      {
        ok: false,
      },
    );
  });
}

function open(calls: Native) {
  const plugin = createConntrack().create(hostOf(calls));
  if ('skip' in plugin) throw new Error(plugin.skip);
  return plugin;
}

function create(options: string): void {
  conntrackTool('-I', ...options.split(' '));
}

/** The tool counts what it did on its standard error. */
function conntrackTool(...parameters: readonly string[]): string {
  const stdio = ['ignore', 'pipe', 'ignore'] as const;
  return execFileSync('conntrack', parameters, { encoding: 'utf8', stdio: [...stdio] });
}

function kernelWorld(calls: Native): ConntrackWorld {
  const plugin = open(calls);
  const protocols = new Map([
    [6, '-p tcp --state ESTABLISHED'],
    [17, '-p udp'],
  ]);
  return {
    conntrack: plugin.api,
    add({ original, mark = 0 }) {
      const { source, destination, protocol, sourcePort, destinationPort } = original;
      const ports = `--sport ${sourcePort} --dport ${destinationPort}`;
      const ends = `-s ${source} -d ${destination} ${ports}`;
      create(`${protocols.get(protocol)} ${ends} -t 100 -m ${mark}`);
    },
    count: () => conntrackTool('-L').split('\n').filter(Boolean).length,
    settle: turns,
    close: () => plugin.stop(),
  };
}
