import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { eventually } from '../lab/daemon.ts';
import { whyNoLab, type Running } from '../lab/namespaces.ts';
import { TwoSites } from '../lab/two-sites.ts';
import { SeededRandom } from '../sim/seeded-random.ts';

/** Datagrams at the port that no peer sent, or that it sent before. */
const skip = whyNoLab();
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const COUNT = 10_000;

/** Sends the datagrams of a file, one of base64 a line, a hundred each turn, and says when it has. */
const SEND = `
  const socket = require('node:dgram').createSocket('udp4');
  const [file, address, port] = process.argv.slice(1);
  const lines = require('node:fs').readFileSync(file, 'utf8').split('\\n');
  function send() {
    const batch = lines.splice(0, 100);
    let left = batch.length;
    for (const line of batch) {
      socket.send(Buffer.from(line, 'base64'), Number(port), address, () => {
        if (--left > 0) return;
        if (lines.length > 0) return setTimeout(send, 5);
        console.log('sent');
        socket.close();
      });
    }
  }
  send();`;

await t.test(`${2 * COUNT} datagrams of junk harm nobody`, { skip }, async (t) => {
  t.comment(`SEED=${SEED}`);
  const random = new SeededRandom(SEED);
  const sites = await TwoSites.create(t, 'dmn-junk');
  const { lab, a, b } = sites;
  a.daemon.configure(sites.configurationOf(a, {}, { keepalive: 1 }));
  b.daemon.configure(sites.configurationOf(b));

  const capture = join(sites.directory, 'capture.pcap');
  const filter = ['udp', 'port', '51820'];
  const dump = lab.spawn('a', ['tcpdump', '-i', 'to-b', '-n', '-U', '-w', capture, ...filter]);
  await dump.waitFor(/listening on/, 10_000);
  const [running] = await Promise.all([a.daemon.start(), b.daemon.start()]);
  await sites.ping(t, 'a', b.ipv4);
  await sites.ping(t, 'b', a.ipv6);
  // tcpdump writes what it has seen when its time comes.
  const genuine = await eventually(
    async () => datagramsOf(readFileSync(capture)),
    (datagrams) => [1, 2, 4].every((type) => datagrams.some(([first]) => first === type)),
    10_000,
  );
  await dump.stop();

  const before = await a.daemon.status();
  const pings = await sites.startPings('a', b.ipv4);
  const bombard = async (): Promise<void> => {
    const file = join(sites.directory, 'junk');
    const junk = Array.from({ length: COUNT }, () => junkOf(genuine, random));
    writeFileSync(file, junk.map((datagram) => datagram.toString('base64')).join('\n'));
    const sender = lab.spawn('b', [process.execPath, '-e', SEND, file, '10.9.0.1', '51820']);
    await sender.waitFor(/sent/, 60_000);
    await pings.next();
  };
  await bombard();
  const warm = megabytes(running);
  await bombard();
  const grown = megabytes(running) - warm;
  t.comment(`RSS ${warm.toFixed(1)} MB after the first ${COUNT}, then ${grown.toFixed(1)} MB more`);
  t.ok(grown < 16, 'what comes in leaves no memory behind');

  const { sent, lost } = await pings.end();
  t.ok(lost <= 1, `${lost} of ${sent} pings were lost`);
  const after = await a.daemon.status();
  t.equal(after.peers[0]?.endpoint, b.endpoints.ipv4, 'the peer is where it was');
  t.equal(after.peers[0]?.lastHandshakeUnixMs, before.peers[0]?.lastHandshakeUnixMs);
  const dropped = total(after.drops) - total(before.drops);
  t.comment(JSON.stringify(after.drops));
  t.ok(dropped > 1.8 * COUNT, `${dropped} were counted`);
  for (const reason of [
    'malformed',
    'invalid-mac1',
    'unknown-session',
    'not-authentic',
    'replayed',
  ]) {
    t.ok((after.drops[reason] ?? 0) > 0, `some as ${reason}`);
  }
  t.notMatch(running.lines.join('\n'), /"severity":"(warn|error)"/);
  t.notOk(existsSync(`${a.daemon.socket}.flight-record.json`));
  t.equal(await a.daemon.stop(), 0);
});

/** A genuine datagram again, or what is left of it after some changes, or none at all. */
function junkOf(genuine: readonly Buffer[], random: SeededRandom): Buffer {
  const below = (limit: number): number => Math.floor(random.fraction() * limit);
  const original = genuine[below(genuine.length)] ?? Buffer.alloc(0);
  switch (below(6)) {
    case 0: {
      const noise = Buffer.alloc(below(1500));
      random.fill(noise);
      return noise;
    }
    case 1: {
      // The beginning of a message of one of the types.
      const noise = Buffer.alloc(4 + below(200));
      random.fill(noise);
      noise.writeUInt32LE(1 + below(4));
      return noise;
    }
    case 2:
      return original;
    case 3:
      return original.subarray(0, below(original.length));
    case 4: {
      const longer = Buffer.alloc(below(500) + 1);
      random.fill(longer);
      return Buffer.concat([original, longer]);
    }
    default: {
      const changed = Buffer.from(original);
      for (let changes = 1 + below(3); changes > 0; changes--) {
        const at = below(changed.length);
        changed.writeUInt8((changed[at] ?? 0) ^ (1 + below(255)), at);
      }
      return changed;
    }
  }
}

/** The UDP payloads of a capture on Ethernet without IP options; pcap-savefile(5). */
function datagramsOf(capture: Buffer): readonly Buffer[] {
  const datagrams: Buffer[] = [];
  for (let at = 24; at + 16 <= capture.length;) {
    const length = capture.readUInt32LE(at + 8);
    const frame = capture.subarray(at + 16, at + 16 + length);
    if (frame.length === length) datagrams.push(Buffer.from(frame.subarray(14 + 20 + 8)));
    at += 16 + length;
  }
  return datagrams;
}

function total(drops: Readonly<Record<string, number>>): number {
  return Object.values(drops).reduce((sum, count) => sum + count, 0);
}

function megabytes({ pid }: Running): number {
  const [, kilobytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) / 1024;
}
