import { spawnSync } from 'node:child_process';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { IpAddress } from '../../core/net/ip-address.ts';
import type { Native } from '../../core/plugin/native.ts';
import { nullLog, type Log } from '../../core/sansio/log.ts';
import { parseSocketAddress, type SocketAddress } from '../../core/net/socket-address.ts';
import { UdpTransport } from '../../plugins/transport-udp/udp-transport.ts';
import { datagramsContract } from '../contract/datagrams.ts';
import { PlainArena } from '../contract/plain-arena.ts';
import { inNamespace, loadSystemCalls, run, turns } from './netlink-namespace.ts';

if (process.env['CULVERT_TEST_ONE_TRAIN'] === '1') {
  sendOneTrain(await loadSystemCalls());
} else if (await inNamespace(import.meta.url)) {
  const native = await loadSystemCalls();
  await t.test('the UDP transport keeps the contract', async (t) => {
    await datagramsContract(t, async () => ({
      create: () => new UdpTransport(native, nullLog),
      settle: turns,
    }));
  });
  await kernelBehaviour(native);
}

async function kernelBehaviour(native: Native): Promise<void> {
  await t.test('the train comes as one record where the kernel has GRO', async (t) => {
    const { transport, arena, port, ipv4 } = open(native);
    t.teardown(() => transport.close());
    const remote = address(`127.0.0.1:${port}`);
    arena.putSends([{ fd: ipv4, remote, payload: new Uint8Array(64 * 1000), segment: 1000 }]);
    t.equal(transport.send(1), 1);
    t.equal(transport.receive(ipv4), 1);
    t.equal(arena.takeDatagrams(1)[0]?.payloads.length, 64);
  });

  await t.test('a train costs one system call', async (t) => {
    const script = [process.execPath, ...process.execArgv, fileURLToPath(import.meta.url)];
    const traced = '--trace=sendmmsg,sendmsg,sendto,recvmmsg';
    const env = { ...process.env, CULVERT_TEST_ONE_TRAIN: '1' };
    // Not -o: a tap child's standard output is a socket, which strace cannot open by name.
    const { stderr: trace, error } = spawnSync('strace', ['-f', '-qq', traced, ...script], {
      env,
      encoding: 'utf8',
    });
    if (error !== undefined) {
      t.pass('skipped', { skip: 'there is no strace' });
      return;
    }
    const sent = trace.split('\n').filter((line) => /127\.0\.0\.1/.test(line));
    t.match(
      sent.filter((line) => /sendmmsg\(/.test(line)),
      { length: 1 },
      trace,
    );
    t.match(
      sent.filter((line) => /recvmmsg\(/.test(line)),
      { length: 1 },
      trace,
    );
    t.match(sent, { length: 2 }, trace);
  });

  await t.test('a train longer than the path takes is split, and GSO stays in use', async (t) => {
    run('ip', 'link', 'add', 'narrow', 'type', 'veth', 'peer', 'name', 'other');
    run('ip', 'link', 'set', 'narrow', 'up', 'mtu', '1280');
    run('ip', 'link', 'set', 'other', 'up', 'mtu', '1280');
    run('ip', 'addr', 'add', '192.0.2.1/24', 'dev', 'narrow');
    run('ip', 'neigh', 'add', '192.0.2.2', 'lladdr', '02:00:00:00:00:02', 'dev', 'narrow');
    t.teardown(() => run('ip', 'link', 'del', 'narrow'));
    const lines: string[] = [];
    const { transport, arena, port, ipv4 } = open(native, logInto(lines));
    t.teardown(() => transport.close());
    const train = { fd: ipv4, payload: new Uint8Array(3 * 1400), segment: 1400 };
    for (let i = 0; i < 2; i++) {
      arena.putSends([{ ...train, remote: address('192.0.2.2:9') }]);
      t.equal(transport.send(1), 1, 'the kernel fragments the single datagrams');
    }
    arena.putSends([{ ...train, remote: address(`127.0.0.1:${port}`) }]);
    t.equal(transport.send(1), 1);
    t.equal(transport.receive(ipv4), 1, 'still one train elsewhere');
    t.same(lines, []);
  });

  await t.test('an interface that refuses GSO is remembered', async (t) => {
    // The kernel of this machine may check sums in software, so the refusal is put in front of it.
    let trains = 0;
    const refusing: Native = {
      ...native,
      sendBatch(buffer, table, count, waitMs) {
        const view = new DataView(buffer);
        if (view.getUint32(table + 8, true) !== 1000) {
          return native.sendBatch(buffer, table, count, waitMs);
        }
        trains++;
        view.setInt32(table + 20, -constants.errno.EIO, true);
        return 0;
      },
    };
    const lines: string[] = [];
    const { transport, arena, port, ipv4 } = open(refusing, logInto(lines));
    t.teardown(() => transport.close());
    for (let i = 0; i < 3; i++) {
      const remote = address(`127.0.0.1:${port}`);
      arena.putSends([{ fd: ipv4, remote, payload: new Uint8Array(5500), segment: 1000 }]);
      t.equal(transport.send(1), 1);
      const datagrams = arena.takeDatagrams(transport.receive(ipv4));
      t.same(
        datagrams.flatMap(({ payloads }) => payloads.map(({ length }) => length)),
        [1000, 1000, 1000, 1000, 1000, 500],
      );
    }
    t.equal(trains, 1);
    t.equal(lines.length, 1);
  });

  await t.test('what the network refuses is counted and never thrown', async (t) => {
    const lines: string[] = [];
    const { transport, arena, ipv4, port } = open(native, logInto(lines));
    t.teardown(() => transport.close());
    const payload = new Uint8Array(10);
    const results = (remotes: readonly string[]): number[] => {
      const all = remotes.map((remote) => ({ fd: ipv4, remote: address(remote), payload }));
      transport.send(arena.putSends(all));
      return remotes.map((_, i) => arena.sendResult(i));
    };
    const { ENETUNREACH, EPERM } = constants.errno;
    t.same(results(['203.0.113.1:1', `127.0.0.1:${port}`]), [-ENETUNREACH, 0]);
    run(
      'nft',
      'add table ip drops; add chain ip drops out { type filter hook output priority 0; }',
    );
    run('nft', 'add rule ip drops out udp dport 77 drop');
    t.same(results(['127.0.0.1:77', '127.0.0.1:78']), [-EPERM, 0]);
    t.equal(transport.receive(ipv4), 1, 'a port that nobody listens on is no error either');
    const local = '198.51.100.1' as IpAddress;
    arena.putSends([{ fd: ipv4, remote: address('203.0.113.1:1'), payload, local }]);
    t.equal(transport.send(1), 0);
    t.equal(arena.pathOfSend(0)?.local, local, 'a source stays where there is no way without it');
    for (let i = 0; i < 3; i++) results(['203.0.113.1:1']);
    t.equal(lines.length, 2, 'each kind is logged once');
  });

  await t.test('without IPv6 there is IPv4 alone', async (t) => {
    const withoutIpv6: Native = {
      ...native,
      socket: (domain, type, protocol) =>
        domain === 10 ? -constants.errno.EAFNOSUPPORT : native.socket(domain, type, protocol),
    };
    const transport = new UdpTransport(withoutIpv6, nullLog);
    t.teardown(() => transport.close());
    const listening = transport.listen(0, { mark: undefined }, new PlainArena(), () => undefined);
    t.match(listening, { ok: true, value: { ipv6: undefined, ipv4: Number } });
  });

  await t.test('the mark is on the datagrams, and changes without a new port', async (t) => {
    const { transport, arena, port } = open(native, nullLog, 0x42);
    t.teardown(() => transport.close());
    run(
      'nft',
      'add table ip marks; add chain ip marks out { type filter hook output priority 0; }',
    );
    for (const mark of ['0x42', '0x43']) {
      run('nft', `add rule ip marks out udp dport 99 meta mark ${mark} counter`);
    }
    transport.sendTo(address('127.0.0.1:99'), new Uint8Array(1));
    transport.listen(port, { mark: 0x43 }, arena, () => undefined);
    transport.sendTo(address('127.0.0.1:99'), new Uint8Array(1));
    const counted = run('nft', 'list', 'table', 'ip', 'marks').match(/counter packets 1 /g);
    t.equal(counted?.length, 2);
  });

  await t.test('a full socket holds the loop up only briefly', async (t) => {
    run('ip', 'link', 'add', 'slow', 'type', 'veth', 'peer', 'name', 'slower');
    run('ip', 'addr', 'add', '192.0.2.1/24', 'dev', 'slow');
    run('ip', 'link', 'set', 'slow', 'up');
    run('ip', 'link', 'set', 'slower', 'up');
    run('ip', 'neigh', 'add', '192.0.2.2', 'lladdr', '02:00:00:00:00:02', 'dev', 'slow');
    t.teardown(() => run('ip', 'link', 'del', 'slow'));
    const { transport, arena, ipv4 } = open(native);
    t.teardown(() => transport.close());
    const remote = address('192.0.2.2:9');
    const train = { fd: ipv4, remote, payload: new Uint8Array(64 * 1000), segment: 1000 };
    try {
      run(
        'tc',
        'qdisc',
        'add',
        'dev',
        'slow',
        'root',
        'tbf',
        'rate',
        '64kbit',
        'burst',
        '64kb',
        'limit',
        '100mb',
      );
    } catch {
      t.pass('skipped', { skip: 'the kernel has no tbf' });
      return;
    }
    let sent = 0;
    const trains = Array.from({ length: 30 }, () => train);
    const started = performance.now();
    sent = transport.send(arena.putSends(trains));
    t.ok(performance.now() - started < 1000);
    t.ok(sent < trains.length, 'the rest is dropped');
    t.equal(arena.sendResult(29), -constants.errno.EAGAIN);
  });
}

interface Open {
  readonly transport: UdpTransport;
  readonly arena: PlainArena;
  readonly port: number;
  readonly ipv4: number;
}

function open(native: Native, log: Log = nullLog, mark?: number): Open {
  const transport = new UdpTransport(native, log);
  const arena = new PlainArena();
  const listening = transport.listen(0, { mark }, arena, () => undefined);
  if (!listening.ok) throw new Error(listening.why);
  return { transport, arena, port: listening.value.port, ipv4: listening.value.ipv4 ?? -1 };
}

/** Runs under strace. */
function sendOneTrain(native: Native): void {
  const { transport, arena, port, ipv4 } = open(native);
  const remote = address(`127.0.0.1:${port}`);
  arena.putSends([{ fd: ipv4, remote, payload: new Uint8Array(64 * 1000), segment: 1000 }]);
  transport.send(1);
  transport.receive(ipv4);
  transport.close();
}

function address(text: string): SocketAddress {
  const parsed = parseSocketAddress(text);
  if (!parsed.ok) throw new Error(parsed.why);
  return parsed.value;
}

function logInto(lines: string[]): Log {
  const line = (message: string): void => void lines.push(message);
  return { ...nullLog, debug: line, info: line, warn: line, error: line };
}
