import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import * as layout from '../../core/fastpath/layout.ts';
import { buildNative } from '../../openwrt/build/native.mjs';
import { createOpensslCipher } from '../../plugins/crypto-openssl/index.ts';
import { loadNative } from '../../plugins/platform-node/index.ts';
import { confuse, nativeContract } from '../contract/native.ts';

const path = await buildNative();
const loaded = loadNative(path);
if ('skip' in loaded) throw new Error(loaded.skip);
const native = loaded;

const AF_INET = 2;
const SOCK_DGRAM = 2;

/** What the native file uses of OpenSSL where it is there. */
const OPENSSL_NAMES = `ERR_clear_error EVP_CIPHER_CTX_ctrl EVP_CIPHER_CTX_free EVP_CIPHER_CTX_new
  EVP_CipherFinal_ex EVP_CipherInit_ex EVP_CipherUpdate EVP_chacha20_poly1305`.split(/\s+/);

/** The exit status of a child that came through; no crash has it. */
const CONFUSED = 42;
const SEED = 'CULVERT_TEST_CONFUSE';
if (process.env[SEED] !== undefined) {
  confuse(native, Number(process.env[SEED]));
  process.exit(CONFUSED);
}

await t.test('the native file keeps the contract', async (t) => {
  await nativeContract(t, native);
});

await t.test('arguments of any kind never crash the process', async (t) => {
  const seed = process.env['SEED'] ?? String(Date.now() % 1e6);
  const script = [...process.execArgv, fileURLToPath(import.meta.url)];
  const env = { ...process.env, [SEED]: seed };
  const { status, signal } = spawnSync(process.execPath, script, { env, stdio: 'ignore' });
  t.same({ status, signal }, { status: CONFUSED, signal: null }, `SEED=${seed}`);
});

await t.test('the C files have the numbers of the arena layout', async (t) => {
  const mirrored = ['batch.c', 'culvert.h'].flatMap((name) => {
    const source = readFileSync(`plugins/platform-node/native/${name}`, 'utf8');
    const start = source.indexOf('/* core/fastpath/layout.ts');
    const section = source.slice(start, source.indexOf('\n\n', start));
    return [...section.matchAll(/^#define (\w+) (\w+)/gm)];
  });
  t.ok(mirrored.length >= 40);
  for (const [, name = '', value] of mirrored) {
    t.equal(Number(value), (layout as Record<string, number>)[name], name);
  }
});

await t.test('it needs nothing that glibc or musl lacks', async (t) => {
  const listed = spawnSync('readelf', ['--wide', '--dynamic', '--dyn-syms', path]);
  if (listed.error !== undefined) {
    t.pass('skipped', { skip: 'there is no readelf' });
    return;
  }
  const text = listed.stdout.toString();
  t.notMatch(text, /NEEDED/, 'it links nothing');
  const neededNames = [...text.matchAll(/ GLOBAL .* UND (\w+)/g)].map(([, name = '']) => name);
  const posix = new Set(
    `bind calloc close free getsockname getsockopt ioctl memcmp memcpy memmove memset open poll read recvfrom
    send setsockopt socket syscall writev __errno_location`.split(/\s+/),
  );
  t.same(
    neededNames.filter((name) => !posix.has(name) && !/^(napi|uv)_/.test(name)),
    [],
  );
  const optionalNames = [...text.matchAll(/ WEAK .* UND (\w+)/g)].map(([, name = '']) => name);
  t.same(optionalNames.toSorted(), OPENSSL_NAMES, 'it can do without OpenSSL');
});

await t.test('where node lacks a function of OpenSSL, sealing and opening say so', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-native-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const binary = readFileSync(path);
  for (const name of OPENSSL_NAMES) {
    // A copy that asks for a function of another name, which nobody has.
    const copy = Buffer.from(binary);
    copy[copy.indexOf(`\0${name}\0`) + 1] = '_'.charCodeAt(0);
    const file = join(directory, `${name}.node`);
    writeFileSync(file, copy);
    const without = loadNative(file);
    if ('skip' in without) throw new Error(without.skip);
    const arena = new ArrayBuffer(64);
    t.equal(without.aeadSeal(arena, 0, 1), -constants.errno.ENOSYS, name);
    t.equal(without.aeadOpen(arena, 0, 1), -constants.errno.ENOSYS, name);
    t.equal(without.aeadOpen(arena, 64, 1), -constants.errno.EINVAL, name);
    t.match(createOpensslCipher(without, arena), { skip: /has no OpenSSL/ });
  }
});

await t.test('what cannot be loaded says why', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-native-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const garbage = join(directory, 'garbage.node');
  writeFileSync(garbage, 'no library');
  t.match(loadNative('/nonexistent/culvert.node'), { skip: /is missing/ });
  t.match(loadNative(garbage), { skip: /does not load into node v.*on .*: .*garbage/ });
  const copy = join(directory, 'copy.node');
  copyFileSync(path, copy);
  t.notOk('skip' in loadNative(copy), 'a second copy in one process');
});

await t.test('a watch calls back while something waits, until it ends', async (t) => {
  const { fd, send } = loop();
  let calls = 0;
  const watch = native.watch(fd, () => {
    calls++;
    if (calls === 3) while (native.receive(fd, new Uint8Array(9), new Uint8Array(0)) >= 0);
  });
  t.ok(watch >= 0);
  await turns();
  t.equal(calls, 0);
  send();
  send();
  await turns();
  t.equal(calls, 3, 'as long as it is not read');
  send();
  t.equal(native.unwatch(watch), 0);
  t.ok(native.unwatch(watch) < 0, 'only once');
  await turns();
  t.equal(calls, 3);
  native.close(fd);
});

await t.test('a callback may end its own watch and start another', async (t) => {
  const { fd, send } = loop();
  const order: string[] = [];
  const first = native.watch(fd, () => {
    order.push('first');
    native.unwatch(first);
    const second = native.watch(fd, () => {
      order.push('second');
      native.unwatch(second);
    });
  });
  send();
  await turns();
  t.same(order, ['first', 'second']);
  native.close(fd);
});

await t.test('promises and ticks of a callback run before the next event', async (t) => {
  const { fd, send } = loop();
  const order: string[] = [];
  const watch = native.watch(fd, () => {
    order.push('callback');
    native.receive(fd, new Uint8Array(9), new Uint8Array(0));
    process.nextTick(() => order.push('tick'));
    void Promise.resolve().then(() => order.push('promise'));
  });
  send();
  send();
  await turns();
  const one = ['callback', 'tick', 'promise'];
  t.same(order, [...one, ...one]);
  native.unwatch(watch);
  native.close(fd);
});

/** Runs a script beside this one and returns how it ended. */
function runScript(body: string): { status: number | null; output: string } {
  const script = `const native = require(${JSON.stringify(path)});
    const fd = native.socket(${AF_INET}, ${SOCK_DGRAM}, 0);
    const address = new Uint8Array(16);
    address.set([${AF_INET}, 0, 0, 0, 127, 0, 0, 1]);
    native.bind(fd, address);
    native.getsockname(fd, address);
    const view = new DataView(new ArrayBuffer(256));
    view.setInt32(64, fd, true);
    view.setUint32(68, 16, true);
    view.setUint32(12, 64, true);
    new Uint8Array(view.buffer).set(address, 72);
    const send = () => native.sendBatch(view.buffer, 0, 1, 0);
    ${body}`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', script], {
    encoding: 'utf8',
    timeout: 20_000,
  });
  return { status, output: stdout + stderr };
}

await t.test('an exception of a callback is an uncaught exception', async (t) => {
  const thrower = `native.watch(fd, () => {
      native.receive(fd, new Uint8Array(9), new Uint8Array(0));
      throw new Error('from the callback');
    }); send();`;
  const uncaught = runScript(thrower);
  t.equal(uncaught.status, 1);
  t.match(uncaught.output, 'Error: from the callback');
  const handled = runScript(`let caught = 0;
    process.on('uncaughtException', () => {
      if (++caught === 2) process.exit(7);
      send();
    }); ${thrower}`);
  t.equal(handled.status, 7, 'and the watch goes on');
});

await t.test('a watch keeps the process alive, an ended one does not', async (t) => {
  const ended = runScript('native.unwatch(native.watch(fd, () => {}));');
  t.same(ended, { status: 0, output: '' });
  const kept = runScript('native.watch(fd, () => process.exit(9)); setTimeout(send, 20).unref();');
  t.equal(kept.status, 9);
});

await t.test('a watch survives an overrun of a netlink socket', async (t) => {
  // With the smallest buffer every burst of link events overruns it.
  const inside = `const events = native.socket(16, 3, 0);
    native.setOption(events, 1, 8, 1);
    native.bind(events, new Uint8Array([16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]));
    const run = (...words) => require('child_process').execFileSync('ip', words);
    const bytes = new Uint8Array(65536);
    const results = [];
    native.watch(events, () => {
      for (;;) {
        const result = native.receive(events, bytes, new Uint8Array(0));
        if (result === -11) return;
        results.push(result);
      }
    });
    const burst = () => {
      run('link', 'add', 'a0', 'type', 'veth', 'peer', 'name', 'b0');
      for (let i = 0; i < 8; i++) run('link', 'set', 'a0', 'mtu', String(1400 + i));
      run('link', 'del', 'a0');
    };
    burst();
    setTimeout(() => {
      const lost = results.filter((result) => result === -105).length;
      results.length = 0;
      run('link', 'set', 'lo', 'up');
      setTimeout(() => {
        console.log(JSON.stringify({ lost, later: results.length }));
        process.exit(0);
      }, 50);
    }, 50);`;
  if (process.getuid?.() !== 0) {
    t.pass('skipped', { skip: 'network namespaces need root' });
    return;
  }
  const script = `const native = require(${JSON.stringify(path)}); ${inside}`;
  const text = execFileSync('unshare', ['--net', process.execPath, '-e', script]).toString();
  const { lost, later } = JSON.parse(text) as { lost: number; later: number };
  t.ok(lost >= 1, 'the loss is told');
  t.ok(later >= 1, 'and later events arrive');
});

await t.test('a worker that ends takes its watches along', async (t) => {
  const { fd, send } = loop();
  for (const end of ['process.exit(0)', 'setTimeout(() => { throw new Error() })', 'stay()']) {
    const source = `const native = require(${JSON.stringify(path)});
      const { parentPort } = require('worker_threads');
      const stay = () => undefined;
      native.watch(${fd}, () => undefined);
      parentPort.postMessage('watching');
      ${end}`;
    const worker = new Worker(source, { eval: true });
    worker.on('error', () => undefined);
    const ended = new Promise((resolve) => worker.once('exit', resolve));
    if (end === 'stay()') {
      await new Promise((resolve) => worker.once('message', resolve));
      await worker.terminate();
    }
    await ended;
  }
  let calls = 0;
  const watch = native.watch(fd, () => {
    calls++;
    native.receive(fd, new Uint8Array(9), new Uint8Array(0));
  });
  send();
  await turns();
  t.equal(calls, 1, 'and this thread is not disturbed');
  native.unwatch(watch);
  native.close(fd);
});

/** A UDP socket on the loopback that sends empty datagrams to itself. */
function loop(): { fd: number; send: () => void } {
  const fd = native.socket(AF_INET, SOCK_DGRAM, 0);
  const address = new Uint8Array(16);
  address.set([AF_INET, 0, 0, 0, 127, 0, 0, 1]);
  native.bind(fd, address);
  native.getsockname(fd, address);
  const view = new DataView(new ArrayBuffer(256));
  const path = 64;
  view.setUint32(layout.SEND_PATH, path, true);
  view.setInt32(path + layout.PATH_FD, fd, true);
  view.setUint32(path + layout.PATH_REMOTE_LENGTH, address.length, true);
  new Uint8Array(view.buffer).set(address, path + layout.PATH_REMOTE);
  return { fd, send: () => void native.sendBatch(view.buffer, 0, 1, 0) };
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 16; turn++) await new Promise((resolve) => setImmediate(resolve));
}
