import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { eventually } from '../lab/daemon.ts';
import { whyNoLab } from '../lab/namespaces.ts';
import { TwoSites } from '../lab/two-sites.ts';

/** Debian's `wg` against the running daemon; what it sets lasts until the next configuration. */
const skip = whyNoLab();

const HOLD_PORT = `
  const socket = require('node:dgram').createSocket('udp4');
  socket.bind(51999, '0.0.0.0', () => console.log('held'));`;
const ASK = `
  const [path, text] = process.argv.slice(1);
  require('node:net').connect(path).end(text).pipe(process.stdout);`;

await t.test('wg steers the running daemon', { skip }, async (t) => {
  const sites = await TwoSites.create(t, 'dmn-wg');
  const { lab, a, b } = sites;
  await sites.start();
  await sites.ping(t, 'a', b.ipv4);

  /** Runs wg in `a` and returns what it prints. wg reads keys from files only. */
  const wg = async (...words: string[]): Promise<string> => {
    const { stdout, stderr, code } = await lab.exec('a', ['wg', ...words]);
    if (code !== 0) throw new Error(`wg ${words.join(' ')}: ${stderr}`);
    return stdout;
  };
  const set = (...words: string[]): Promise<string> => wg('set', a.device, ...words);
  const setAtB = (...words: string[]) => lab.exec('b', ['wg', 'set', b.device, ...words]);
  const keyFile = (name: string, key: string): string => {
    const path = join(sites.directory, name);
    writeFileSync(path, key);
    return path;
  };

  await t.test('wg show', async (t) => {
    const shown = await wg('show', a.device);
    t.match(shown, `interface: ${a.device}`);
    t.match(shown, `public key: ${a.publicKey}`);
    t.match(shown, 'listening port: 51820');
    t.match(shown, `peer: ${b.publicKey}`);
    t.match(shown, `endpoint: ${b.endpoints.ipv4}`);
    t.match(shown, /latest handshake: .*(second|Now)/);
    t.match(shown, /transfer: .* received, .* sent/);
    t.match(await wg('show', 'interfaces'), a.device);
  });

  await t.test('wg show dump', async (t) => {
    const [own = '', peer = '', ...more] = (await wg('show', a.device, 'dump')).trim().split('\n');
    t.same(more, []);
    t.match(own, new RegExp(`^\\S{44}\t${escaped(a.publicKey)}\t51820\toff$`));
    const [key, psk, endpoint, allowedIps, handshake, received, sent, keepalive] = peer.split('\t');
    t.same([key, psk, keepalive], [b.publicKey, '(none)', 'off']);
    t.same([endpoint, allowedIps], [b.endpoints.ipv4, `${b.ipv4}/32,${b.ipv6}/128`]);
    t.ok(Math.abs(Number(handshake) - Date.now() / 1000) < 60, 'the handshake was just now');
    t.ok(Number(received) >= 2 * 84 && Number(sent) >= 2 * 84, 'the pings were counted');
  });

  await t.test('wg showconf is taken back by setconf and syncconf', async (t) => {
    const configuration = await wg('showconf', a.device);
    t.match(configuration, `PublicKey = ${b.publicKey}`);
    const file = keyFile('showconf', configuration);
    await wg('syncconf', a.device, file);
    await sites.ping(t, 'a', b.ipv4);
    await wg('setconf', a.device, file);
    t.equal(await wg('showconf', a.device), configuration);
    await sites.ping(t, 'a', b.ipv4);
  });

  await t.test('a peer is added and removed, its routes with it', async (t) => {
    const stranger = newKey();
    const networks = '192.168.80.0/24,fd80::/64';
    await set('peer', stranger.publicKey, 'allowed-ips', networks, 'endpoint', '10.9.0.3:1');
    t.match((await a.daemon.status()).peers[1], { state: 'idle', endpoint: '10.9.0.3:1' });
    t.match(await lab.ip('a', 'route show 192.168.80.0/24'), a.device);
    t.match(await lab.ip('a', '-6 route show fd80::/64'), a.device);
    await set('peer', stranger.publicKey, 'remove');
    t.equal((await a.daemon.status()).peers.length, 1);
    t.equal(await lab.ip('a', 'route show 192.168.80.0/24'), '');
    await sites.ping(t, 'a', b.ipv4);
  });

  await t.test('allowed-ips move traffic, and 0.0.0.0/0 makes no route', async (t) => {
    await lab.ip('b', 'address add 192.168.90.1/32 dev lo');
    const both = `${b.ipv4}/32,${b.ipv6}/128,192.168.90.0/24`;
    await set('peer', b.publicKey, 'allowed-ips', both);
    await sites.ping(t, 'a', '192.168.90.1');
    await set('peer', b.publicKey, 'allowed-ips', `${b.ipv4}/32,${b.ipv6}/128`);
    t.equal(await lab.ip('a', 'route show 192.168.90.0/24'), '');

    await set('peer', b.publicKey, 'allowed-ips', '0.0.0.0/0,::/0');
    t.equal(await lab.ip('a', 'route show default'), '');
    t.equal(await lab.ip('a', '-6 route show default'), '');
    t.match(await wg('show', a.device, 'allowed-ips'), '0.0.0.0/0 ::/0');
    await lab.ip('a', `route add 192.168.90.0/24 dev ${a.device}`);
    await sites.ping(t, 'a', '192.168.90.1');
    await lab.ip('a', `route del 192.168.90.0/24 dev ${a.device}`);
    await set('peer', b.publicKey, 'allowed-ips', `${b.ipv4}/32,${b.ipv6}/128`);
    await sites.ping(t, 'a', b.ipv4);
  });

  await t.test('a preshared key must be on both sides, until it is taken off', async (t) => {
    /** A peer that is removed and added has no session: its next one shows which keys fit. */
    const setAtA = async (file: string): Promise<void> => {
      const allowedIps = `${b.ipv4}/32,${b.ipv6}/128`;
      await set('peer', b.publicKey, 'remove');
      await set('peer', b.publicKey, 'allowed-ips', allowedIps, 'endpoint', b.endpoints.ipv4);
      await set('peer', b.publicKey, 'preshared-key', file);
    };
    const psk = keyFile('psk', newKey().privateKey);
    await setAtB('peer', a.publicKey, 'preshared-key', psk);
    await setAtA(psk);
    t.match(await wg('show', a.device, 'preshared-keys'), /\t\S{44}$/m);
    await sites.ping(t, 'a', b.ipv4);

    await setAtA(keyFile('other', newKey().privateKey));
    const { code } = await lab.exec('a', ['ping', '-c1', '-W1', b.ipv4]);
    t.equal(code, 1, 'another one at the other side');

    await setAtB('peer', a.publicKey, 'preshared-key', '/dev/null');
    await setAtA('/dev/null');
    await sites.ping(t, 'a', b.ipv4);
    t.match(await wg('show', a.device, 'preshared-keys'), '(none)');
  });

  await t.test('the port moves, and one that is taken is refused', async (t) => {
    await set('listen-port', '51830');
    await sites.ping(t, 'a', b.ipv4);
    t.equal((await wg('show', a.device, 'listen-port')).trim(), '51830');
    t.match((await b.daemon.status()).peers, [{ endpoint: '10.9.0.1:51830' }]);
    await set('listen-port', '0');
    const random = Number(await wg('show', a.device, 'listen-port'));
    t.ok(random > 1024 && random !== 51830, `0 lets the kernel choose: ${random}`);
    await sites.ping(t, 'a', b.ipv4);

    const holder = lab.spawn('a', [process.execPath, '-e', HOLD_PORT]);
    await holder.waitFor(/held/, 10_000);
    await t.rejects(set('listen-port', '51999'), /in use/);
    t.equal(Number(await wg('show', a.device, 'listen-port')), random);
    await sites.ping(t, 'a', b.ipv4);
    await set('listen-port', '51820');
  });

  await t.test('the endpoint moves to the other family', async (t) => {
    await set('peer', b.publicKey, 'endpoint', b.endpoints.ipv6);
    await sites.ping(t, 'a', b.ipv4);
    t.match((await a.daemon.status()).peers, [{ endpoint: b.endpoints.ipv6 }]);
    await set('peer', b.publicKey, 'endpoint', b.endpoints.ipv4);
    await sites.ping(t, 'a', b.ipv4);
  });

  await t.test('a keepalive of a second goes out by itself', async (t) => {
    await set('peer', b.publicKey, 'persistent-keepalive', '1');
    const sent = async () => Number((await wg('show', a.device, 'transfer')).split('\t')[2]);
    const before = await sent();
    await eventually(sent, (now) => now >= before + 2 * 32, 10_000);
    t.match(await wg('show', a.device, 'persistent-keepalive'), '\t1');
    await set('peer', b.publicKey, 'persistent-keepalive', 'off');
  });

  await t.test('another private key is another peer for the other side', async (t) => {
    const next = newKey();
    await setAtB('peer', next.publicKey, 'allowed-ips', `${a.ipv4}/32,${a.ipv6}/128`);
    const { code } = await lab.exec('a', ['ping', '-c1', '-W1', b.ipv4]);
    t.equal(code, 1, 'which waits for the new one');
    await set('private-key', keyFile('private', next.privateKey));
    t.match(await wg('show', a.device, 'public-key'), next.publicKey);
    await sites.ping(t, 'a', b.ipv4);
    t.match(await a.daemon.status(), { publicKey: next.publicKey });
  });

  await t.test('a mark is set on what leaves', async (t) => {
    await set('fwmark', '0x2680');
    t.match(await wg('show', a.device, 'fwmark'), '0x2680');
    await sites.ping(t, 'a', b.ipv4);
    await lab.ip('a', 'rule add fwmark 0x2680 blackhole');
    const { code } = await lab.exec('a', ['ping', '-c1', '-W1', b.ipv4]);
    t.equal(code, 1, 'a rule can tell it');
    await lab.ip('a', 'rule del fwmark 0x2680');
    await set('fwmark', 'off');
    await sites.ping(t, 'a', b.ipv4);
  });

  await t.test('nonsense is refused and changes nothing', async (t) => {
    const before = await wg('showconf', a.device);
    const networks = Array.from(
      { length: 257 },
      (_, i) => `allowed_ip=10.77.${i % 256}.0/${24 + (i >> 8)}`,
    );
    const refused = [
      ['listen_port=99999', 'EINVAL'],
      ['colour=red', 'EINVAL'],
      ['listen_port', 'EPROTO'],
      [`private_key=${'7'.repeat(64)}\npublic_key=${'0'.repeat(64)}`, 'EINVAL'],
      [
        `private_key=${'7'.repeat(64)}\npublic_key=${'5'.repeat(64)}\n${networks.join('\n')}`,
        'ENOSPC',
      ],
    ] as const;
    for (const [lines, errno] of refused) {
      const ask = ['-e', ASK, `/var/run/wireguard/${a.device}.sock`, `set=1\n${lines}\n\n`];
      const answer = execFileSync(process.execPath, ask, { encoding: 'utf8' });
      t.equal(answer, `errno=-${constants.errno[errno]}\n\n`, lines.slice(0, 20));
    }
    t.equal(await wg('showconf', a.device), before);
    await sites.ping(t, 'a', b.ipv4);
  });
});

function newKey(): { readonly privateKey: string; readonly publicKey: string } {
  const privateKey = execFileSync('wg', ['genkey'], { encoding: 'utf8' });
  const publicKey = execFileSync('wg', ['pubkey'], { input: privateKey, encoding: 'utf8' }).trim();
  return { privateKey: privateKey.trim(), publicKey };
}

function escaped(text: string): string {
  return text.replace(/[+/]/g, '\\$&');
}
