import { constants } from 'node:os';
import type { Test } from 'tap';
import {
  DATAGRAM_LENGTH,
  DATAGRAM_OFFSET,
  DATAGRAM_SIZE,
  LARGEST_READ,
  LARGEST_TRAIN,
  MESSAGE_AUTHENTIC,
  MESSAGE_KEY,
  MESSAGE_LENGTH,
  MESSAGE_OFFSET,
  MESSAGE_SIZE,
  PATH_FD,
  PATH_REMOTE,
  PATH_REMOTE_LENGTH,
  READ_SIZE,
  SEND_LENGTH,
  SEND_OFFSET,
  SEND_PATH,
  SEND_RESULT,
  SEND_SEGMENT,
  SEND_SIZE,
  SEND_SPLIT,
  WRITE_COUNT,
  WRITE_IOVECS,
  WRITE_RESULT,
} from '../../core/fastpath/layout.ts';
import type { Native } from '../../core/plugin/native.ts';

const { EAGAIN, EBADF, EINVAL, ENOENT, ENOSYS, ENOTSOCK, ENAMETOOLONG, EFAULT, ENOTTY } =
  constants.errno;
const AF_UNIX = 1;
const AF_INET = 2;
const AF_NETLINK = 16;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_RCVBUF = 8;

/**
 * What every implementation of `Native` must do, on the loopback of whatever network it is in. `wrong`
 * is `Native` without its types: what JavaScript may hand over by mistake.
 */
export async function nativeContract(t: Test, native: Native): Promise<void> {
  const udp = (t: Test): { fd: number; address: Uint8Array } => {
    const fd = native.socket(AF_INET, SOCK_DGRAM, 0);
    t.teardown(() => native.close(fd));
    const address = new Uint8Array(16);
    address.set([AF_INET, 0, 0, 0, 127, 0, 0, 1]);
    t.equal(native.bind(fd, address), 0);
    t.equal(native.getsockname(fd, address), 16);
    return { fd, address };
  };

  await t.test('a netlink request is answered as the kernel answers', async (t) => {
    const fd = native.socket(AF_NETLINK, SOCK_RAW, 0);
    t.teardown(() => native.close(fd));
    t.equal(native.bind(fd, new Uint8Array([AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])), 0);
    // RTM_GETLINK for interface 1, the loopback.
    const request = new Uint8Array(32);
    request.set([32, 0, 0, 0, 18, 0, 1, 0, 7]);
    request[20] = 1;
    t.equal(native.send(fd, request), 32);
    const answer = new Uint8Array(65_536);
    const from = new Uint8Array(12);
    const length = native.receive(fd, answer, from);
    t.ok(length > 32);
    t.equal(answer[4], 16, 'RTM_NEWLINK');
    t.equal(answer[8], 7, 'with our sequence number');
    t.same([...from], [AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 'from the kernel');
    t.equal(native.receive(fd, answer, from), -EAGAIN);
  });

  await t.test('options are set and read', async (t) => {
    const { fd } = udp(t);
    t.equal(native.getOption(fd, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
    t.equal(native.setOption(fd, SOL_SOCKET, SO_RCVBUF, 8192), 0);
    t.equal(native.getOption(fd, SOL_SOCKET, SO_RCVBUF), 16_384, 'the kernel doubles it');
    t.equal(native.setOptionBytes(fd, SOL_SOCKET, SO_RCVBUF, new Uint8Array([0, 32, 0, 0])), 0);
    t.equal(native.setOptionBytes(fd, SOL_SOCKET, SO_RCVBUF, new Uint8Array(1)), -EINVAL);
    t.ok(native.getOption(fd, 999, 1) < 0);
  });

  await t.test('errors are negative errno values', async (t) => {
    t.equal(native.open('/nonexistent'), -ENOENT);
    t.equal(native.open('/'.repeat(400)), -ENAMETOOLONG);
    t.equal(native.close(-1), -EBADF);
    t.equal(native.send(-1, new Uint8Array(1)), -EBADF);
    t.equal(native.receive(-1, new Uint8Array(1), new Uint8Array(0)), -EBADF);
    t.ok(native.socket(99, 1, 0) < 0);
    t.equal(native.unwatch(12_345), -ENOENT);
    t.equal(
      native.watch(-1, () => undefined),
      -EINVAL,
    );
    const file = native.open('/dev/null');
    t.teardown(() => native.close(file));
    t.equal(native.send(file, new Uint8Array(1)), -ENOTSOCK);
    t.ok(native.watch(file, () => undefined) < 0, 'a file that cannot be polled');
  });

  await t.test('ioctl changes its bytes in place, and takes a number as it is', async (t) => {
    const { fd } = udp(t);
    const SIOCGIFINDEX = 0x8933;
    const request = new Uint8Array(40);
    request.set([0x6c, 0x6f]); // lo
    t.equal(native.ioctl(fd, SIOCGIFINDEX, request), 0);
    t.equal(new DataView(request.buffer).getInt32(16, true), 1);
    const short = new Uint8Array(3);
    short.set([0x6c, 0x6f]);
    t.equal(native.ioctl(fd, SIOCGIFINDEX, short), 0, 'what the kernel writes beyond is dropped');
    t.equal(native.ioctl(fd, SIOCGIFINDEX, new Uint8Array(257)), -EINVAL);
    t.equal(native.ioctl(fd, SIOCGIFINDEX, 64), -EFAULT, 'a number is no pointer');
    t.equal(native.ioctl(fd, SIOCGIFINDEX, 4096), -EINVAL);
    t.equal(native.ioctl(fd, 0xffffffff, new Uint8Array(4)), -ENOTTY);
  });

  await t.test('a split train is sent datagram by datagram', async (t) => {
    const { fd, address } = udp(t);
    const buffer = new ArrayBuffer(1 << 20);
    const view = new DataView(buffer);
    const path = 1024;
    view.setInt32(path + PATH_FD, fd, true);
    view.setUint32(path + PATH_REMOTE_LENGTH, 16, true);
    new Uint8Array(buffer).set(address, path + PATH_REMOTE);
    view.setUint32(SEND_OFFSET, 4096, true);
    view.setUint32(SEND_LENGTH, 69 * 10 + 3, true);
    view.setUint32(SEND_SEGMENT, 10 | SEND_SPLIT, true);
    view.setUint32(SEND_PATH, path, true);
    t.equal(native.sendBatch(buffer, 0, 1, 0), 1);
    t.equal(view.getInt32(SEND_RESULT, true), 0);
    const lengths: number[] = [];
    const bytes = new Uint8Array(100);
    for (;;) {
      const length = native.receive(fd, bytes, new Uint8Array(0));
      if (length < 0) break;
      lengths.push(length);
    }
    t.same(lengths, [...Array.from({ length: 69 }, () => 10), 3]);
    // A train that fails at its first datagram fails as a whole, and the next record is sent.
    view.setUint32(path + PATH_REMOTE_LENGTH, 3, true);
    const good = 2048;
    new Uint8Array(buffer).copyWithin(good, path, path + 64);
    view.setUint32(good + PATH_REMOTE_LENGTH, 16, true);
    view.setUint32(SEND_SIZE + SEND_OFFSET, 4096, true);
    view.setUint32(SEND_SIZE + SEND_LENGTH, 5, true);
    view.setUint32(SEND_SIZE + SEND_PATH, good, true);
    t.equal(native.sendBatch(buffer, 0, 2, 0), 1);
    t.same(
      [0, SEND_SIZE].map((record) => view.getInt32(record + SEND_RESULT, true)),
      [-EINVAL, 0],
    );
    t.equal(native.receive(fd, bytes, new Uint8Array(0)), 5);
  });

  await t.test('datagrams that come one by one are taken together, up to a train', async (t) => {
    const { fd, address } = udp(t);
    const buffer = new ArrayBuffer(1 << 20);
    const view = new DataView(buffer);
    const bytes = new Uint8Array(buffer);
    const [path, table, from, into] = [1024, 2048, 16_384, 1 << 17];
    view.setInt32(path + PATH_FD, fd, true);
    view.setUint32(path + PATH_REMOTE_LENGTH, 16, true);
    bytes.set(address, path + PATH_REMOTE);
    const [count, length] = [80, 1001];
    for (let i = 0; i < count; i++) bytes.fill(i, from + i * length, from + (i + 1) * length);
    for (const [record, first] of [0, count / 2].entries()) {
      const send = record * SEND_SIZE;
      view.setUint32(send + SEND_OFFSET, from + first * length, true);
      view.setUint32(send + SEND_LENGTH, (count / 2) * length, true);
      view.setUint32(send + SEND_SEGMENT, length | SEND_SPLIT, true);
      view.setUint32(send + SEND_PATH, path, true);
    }
    t.equal(native.sendBatch(buffer, 0, 2, 0), 2);
    const end = into + 8 * LARGEST_TRAIN;
    const batches: number[] = [];
    let next = 0;
    for (;;) {
      const received = native.receiveBatch(fd, buffer, into, end, table, 100);
      if (received === 0) break;
      batches.push(received);
      for (let i = 0; i < received; i++, next++) {
        const record = table + i * DATAGRAM_SIZE;
        const at = view.getUint32(record + DATAGRAM_OFFSET, true);
        t.equal(at % 16, 0, 'aligned for vector loads');
        t.equal(view.getUint32(record + DATAGRAM_LENGTH, true), length);
        t.ok(
          bytes.subarray(at, at + length).every((byte) => byte === next),
          `datagram ${next}`,
        );
      }
    }
    t.equal(next, count);
    t.ok((batches[0] ?? 0) * length >= LARGEST_TRAIN, 'as much as a train');
    t.ok((batches[0] ?? 0) < count, 'and not for ever');
    native.sendBatch(buffer, 0, 1, 0);
    t.equal(
      native.receiveBatch(fd, buffer, into, end, table, 11),
      11,
      'no more than was asked for',
    );
  });

  await t.test('records that leave the arena are refused one by one', async (t) => {
    const { fd, address } = udp(t);
    const buffer = new ArrayBuffer(4096);
    const view = new DataView(buffer);
    const path = 1024;
    view.setInt32(path + PATH_FD, fd, true);
    view.setUint32(path + PATH_REMOTE_LENGTH, 16, true);
    new Uint8Array(buffer).set(address, path + PATH_REMOTE);
    const wrong: readonly (readonly [number, number])[] = [
      [SEND_OFFSET, 4096],
      [SEND_OFFSET, 0xffffffff],
      [SEND_LENGTH, 4097],
      [SEND_LENGTH, 0xfffffff0],
      [SEND_PATH, 4096 - 63],
      [SEND_PATH, 0xfffffff0],
      [SEND_SEGMENT, 0x20000],
      [SEND_SEGMENT, 0xffffffff],
    ];
    for (const [field, value] of wrong) {
      new Uint8Array(buffer).fill(0, 0, SEND_SIZE);
      view.setUint32(SEND_LENGTH, 1, true);
      view.setUint32(SEND_PATH, path, true);
      t.equal(native.sendBatch(buffer, 0, 1, 0), 1, 'it is right before');
      view.setUint32(field, value, true);
      t.equal(native.sendBatch(buffer, 0, 1, 0), 0);
      t.equal(view.getInt32(SEND_RESULT, true), -EINVAL, `${field}: ${value}`);
    }
    view.setUint32(WRITE_IOVECS, 4096 - 8, true);
    view.setUint32(WRITE_COUNT, 1, true);
    view.setUint32(4096 - 8, 4000, true);
    view.setUint32(4096 - 4, 97, true);
    t.equal(native.writeBatch(fd, buffer, 0, 1), 0);
    t.equal(view.getInt32(WRITE_RESULT, true), -EINVAL, 'a piece');
    view.setUint32(WRITE_COUNT, 2, true);
    t.equal(native.writeBatch(fd, buffer, 0, 1), 0);
    t.equal(view.getInt32(WRITE_RESULT, true), -EINVAL, 'the iovecs');
  });

  await t.test('regions and tables that leave the arena are refused as a whole', async (t) => {
    const { fd } = udp(t);
    const size = 4 << 20;
    const buffer = new ArrayBuffer(size);
    const into = 4096;
    for (const name of ['readBatch', 'receiveBatch'] as const) {
      const call = (...args: Parameters<Native['readBatch']>): number => native[name](...args);
      t.equal(call(fd, buffer, into, size + 1, 0, 1), -EINVAL);
      t.equal(call(fd, buffer, size, into, 0, 1), -EINVAL);
      t.equal(call(fd, buffer, into, size, size - 1, 1), -EINVAL);
      t.equal(call(fd, buffer, into, size, 0, 0xffffffff), -EINVAL);
      t.equal(call(fd, buffer, into, size, 0xffffffff, 0xffffffff), -EINVAL);
      t.equal(call(fd, buffer, into, into, 0, 1), 0, 'no room is no error');
    }
    t.equal(native.readBatch(fd, buffer, into, into + LARGEST_READ, 0, 1), 0);
    t.equal(native.receiveBatch(fd, buffer, into, into + LARGEST_TRAIN - 1, 0, 1), 0);
    t.equal(native.writeBatch(fd, buffer, size, 1), -EINVAL);
    t.equal(native.sendBatch(buffer, size - SEND_SIZE + 1, 1, 0), -EINVAL);
    t.equal(native.sendBatch(buffer, 0, 1, -1), -EINVAL, 'it never waits for ever');
    t.equal(READ_SIZE, 8);
  });

  await t.test('messages that leave the arena are neither sealed nor authentic', async (t) => {
    const size = 4096;
    const buffer = new ArrayBuffer(size);
    if (native.aeadSeal(buffer, 0, 0) === -ENOSYS) {
      t.pass('skipped', { skip: 'there is no OpenSSL' });
      return;
    }
    const view = new DataView(buffer);
    const place = (): void => {
      new Uint8Array(buffer).fill(0);
      for (let i = 0; i < 3; i++) {
        view.setUint32(i * MESSAGE_SIZE + MESSAGE_OFFSET, 1024 * (i + 1), true);
        view.setUint32(i * MESSAGE_SIZE + MESSAGE_LENGTH, 100, true);
        view.setUint32(i * MESSAGE_SIZE + MESSAGE_KEY, 512, true);
      }
    };
    const wrong: readonly (readonly [number, number])[] = [
      [MESSAGE_OFFSET, size - (16 + 100 + 16) + 1],
      [MESSAGE_OFFSET, 0xffffffff],
      [MESSAGE_LENGTH, size - 2048 - 32 + 1],
      [MESSAGE_LENGTH, 0x7fffffff],
      [MESSAGE_LENGTH, 0x80000000],
      [MESSAGE_LENGTH, 0xffffffff],
      [MESSAGE_KEY, size - 31],
      [MESSAGE_KEY, 0xffffffff],
    ];
    const authentic = (): readonly number[] =>
      [0, 1, 2].map((i) => view.getUint32(i * MESSAGE_SIZE + MESSAGE_AUTHENTIC, true));
    for (const [field, value] of wrong) {
      place();
      t.equal(native.aeadSeal(buffer, 0, 3), 3, 'it is right before');
      view.setUint32(MESSAGE_SIZE + field, value, true);
      view.setUint32(MESSAGE_SIZE + MESSAGE_AUTHENTIC, 1, true);
      t.equal(native.aeadOpen(buffer, 0, 3), 2, `${field}: ${value}`);
      t.same(authentic(), [1, 0, 1]);
      t.equal(native.aeadSeal(buffer, 0, 3), 1, 'it seals up to there');
    }
    for (const name of ['aeadSeal', 'aeadOpen'] as const) {
      t.equal(native[name](buffer, size - MESSAGE_SIZE + 1, 1), -EINVAL);
      t.equal(native[name](buffer, 0, 0xffffffff), -EINVAL);
      t.equal(native[name](buffer, 0xffffffff, 0xffffffff), -EINVAL);
      t.equal(native[name](buffer, size, 0), 0);
    }
  });
}

/**
 * Calls everything with arguments and records of any kind; throws where the answer is no number. It
 * must run in a process that has no sockets but its own, because any descriptor may be sent to.
 */
export function confuse(native: Native, seed: number): void {
  const fd = native.socket(AF_INET, SOCK_DGRAM, 0);
  const socket = native.socket(AF_UNIX, SOCK_DGRAM, 0);
  const random = sequence(seed);
  const buffer = new ArrayBuffer(LARGEST_TRAIN * 4);
  const words = new Uint32Array(buffer);
  const edges = [0, 1, 7, 8, 63, 64, 4096, buffer.byteLength - 64, buffer.byteLength, 2 ** 31];
  const numbers = [...edges, -1, 2 ** 32 - 1, 2 ** 32, 2 ** 53, 0.5, NaN, Infinity];
  const strange = [undefined, 'x', {}, [], true, 5n, Symbol('x'), () => undefined, null];
  const bytes = [new Uint8Array(0), new Uint8Array(16), new Uint8Array(300), new Int8Array(16)];
  const memory = [buffer, new ArrayBuffer(0), new SharedArrayBuffer(64), detached()];
  const pick = <T>(from: readonly T[]): T => from[random(from.length)] as T;
  const calls = native as unknown as Record<string, (...args: unknown[]) => unknown>;
  const names = Object.keys(native).filter((name) => name !== 'close' && name !== 'watch');
  for (let i = 0; i < 5000; i++) {
    const name = pick(names);
    for (let j = 0; j < 64; j++) words[random(2048)] = pick(numbers) >>> 0;
    for (let j = 0; j < 8; j++) words[random(2048)] = pick([fd, socket, random(buffer.byteLength)]);
    const rest = Array.from({ length: random(7) }, () =>
      pick<unknown>([pick(numbers), pick(edges), pick(memory), pick(bytes), pick(strange), buffer]),
    );
    // Half of the calls have the types right, so that the values are looked at.
    const shaped = name.endsWith('Batch')
      ? [buffer, pick(edges), pick(edges), pick(edges), random(80)]
      : name.startsWith('aead')
        ? [buffer, random(4096), random(64)]
        : [pick(edges), pick(edges), pick(bytes)];
    const tail = random(2) === 0 ? rest : shaped;
    const takesFile = !/^(sendBatch|open|socket|aead.*)$/.test(name);
    const args = takesFile ? [pick([fd, fd, socket, -1]), ...tail] : tail;
    if (name === 'sendBatch' && typeof args[3] === 'number') args[3] = 0; // no waiting
    const result = calls[name]?.(...args);
    if (typeof result !== 'number') throw new Error(`${name} answered ${String(result)}`);
    if (name === 'socket' && result >= 0) native.close(result);
  }
}

/** A small deterministic sequence (mulberry32). */
function sequence(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let word = Math.imul(state ^ (state >>> 15), 1 | state);
    word = (word + Math.imul(word ^ (word >>> 7), 61 | word)) ^ word;
    return ((word ^ (word >>> 14)) >>> 0) % below;
  };
}

function detached(): ArrayBuffer {
  const buffer = new ArrayBuffer(64);
  structuredClone(buffer, { transfer: [buffer] });
  return buffer;
}
