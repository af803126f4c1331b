import { constants } from 'node:os';
import t from 'tap';
import { HOST_IS_LITTLE_ENDIAN } from '../../core/netlink/byte-order.ts';
import { MessageFlag, MessageType } from '../../core/netlink/constants.ts';
import { MessageWriter } from '../../core/netlink/message-writer.ts';
import { readMessages, stampSequence } from '../../core/netlink/message.ts';
import { encodeLinksQuery, encodeLinkUp } from '../../core/netlink/rtnetlink/link.ts';
import type { Native } from '../../core/plugin/native.ts';
import { RequestSocket } from '../../plugins/netlink/request-socket.ts';

const LE = HOST_IS_LITTLE_ENDIAN;
const { EAGAIN, ENOBUFS, EPERM, ENOPROTOOPT, EAFNOSUPPORT } = constants.errno;

await t.test('repeats a dump that was interrupted', async (t) => {
  const { socket, sent } = open(
    [item(MessageFlag.dumpInterrupted), item(), done()],
    [item(), done()],
  );
  t.strictSame(socket.dump(encodeLinksQuery(), count()), { ok: true, value: [3] });
  t.equal(sent.length, 2);
  t.match(socket.stats, { repeatedDumps: 1, interruptedDumps: 0 });
});

await t.test('does not repeat it for ever', async (t) => {
  const interrupted = [item(MessageFlag.dumpInterrupted), done()];
  const { socket, sent } = open(...Array.from({ length: 9 }, () => interrupted));
  t.match(socket.dump(encodeLinksQuery(), count()), { ok: true });
  t.equal(sent.length, 5);
  t.match(socket.stats, { repeatedDumps: 4, interruptedDumps: 1 });
});

await t.test('counts what it cannot read', async (t) => {
  const { socket } = open([item(), done()]);
  t.strictSame(
    socket.dump(encodeLinksQuery(), () => undefined),
    { ok: true, value: [] },
  );
  t.equal(socket.stats.malformed, 1);
});

await t.test('hears the kernel alone', async (t) => {
  const forged = { ...error(0), port: 4711 };
  const { socket } = open([forged, error(EPERM)]);
  t.match(socket.request(encodeLinkUp(1)), { code: 'EPERM' });
});

await t.test('takes no answer to an earlier request for its own', async (t) => {
  const { socket } = open([{ ...error(0), late: true }, error(EPERM)]);
  t.match(socket.request(encodeLinkUp(1)), { code: 'EPERM' });
});

await t.test('does not wait for an answer that is not there', async (t) => {
  const { socket } = open([item()], [], [error(0)]);
  t.match(socket.dump(encodeLinksQuery(), count()), { ok: false, refusal: { code: 'EAGAIN' } });
  t.match(socket.request(encodeLinkUp(1)), { code: 'EAGAIN' });
  t.equal(socket.request(encodeLinkUp(1)), undefined, 'and works on');
});

await t.test('tells when an answer was lost', async (t) => {
  const { socket } = open([-ENOBUFS]);
  t.match(socket.request(encodeLinkUp(1)), { code: 'ENOBUFS' });
});

await t.test('sends changes together, and knows which of them were refused', async (t) => {
  const changes = Array.from({ length: 130 }, (_, i) => encodeLinkUp(i));
  const { socket, sent } = open(
    [
      { ...error(EPERM), index: 3 },
      { ...error(0), late: true },
      { ...error(0), index: 63 },
    ],
    [{ ...error(0), index: 63 }],
    [{ ...error(EPERM), index: 1 }],
  );
  const refusals = socket.requestAll(changes);
  t.equal(refusals.length, 130);
  const refused = [...refusals.entries()].filter(([, refusal]) => refusal !== undefined);
  t.match(refused, [
    [3, { code: 'EPERM' }],
    [129, { code: 'EPERM' }],
  ]);
  t.equal(refused.length, 2);
  const messages = sent.map((datagram) => readMessages(datagram));
  t.strictSame(
    messages.map((read) => [read.isWhole, read.messages.length]),
    [
      [true, 64],
      [true, 64],
      [true, 2],
    ],
  );
  const all = messages.flatMap((read) => read.messages);
  t.strictSame(
    all.map(({ sequence }) => sequence),
    changes.map((_, i) => i + 1),
    'each has a number of its own',
  );
  const asking = all.flatMap(({ flags }, i) => ((flags & MessageFlag.ack) === 0 ? [] : [i]));
  t.strictSame(asking, [63, 127, 129], 'the last of a datagram asks for an answer');
});

await t.test('takes changes for refused whose answers were lost', async (t) => {
  const { socket } = open([{ ...error(EPERM), index: 0 }, -ENOBUFS], [error(0)]);
  const refusals = socket.requestAll([encodeLinkUp(1), encodeLinkUp(2), encodeLinkUp(3)]);
  t.match(refusals, [{ code: 'EPERM' }, { code: 'ENOBUFS' }, { code: 'ENOBUFS' }]);
  t.strictSame(socket.requestAll([encodeLinkUp(1)]), [undefined], 'and works on');
  t.strictSame(socket.requestAll([]), []);
  socket.close();
  t.match(socket.requestAll([encodeLinkUp(1)]), [{ code: 'EBADF' }]);
});

await t.test('works on kernels without the newer options', async (t) => {
  const { socket } = open([error(0)]);
  t.equal(socket.request(encodeLinkUp(1)), undefined);
});

await t.test('says when there is no netlink', async (t) => {
  const calls = { socket: () => -EAFNOSUPPORT } as unknown as Native;
  t.match(RequestSocket.open(calls, 0), { ok: false, refusal: { code: 'EAFNOSUPPORT' } });
});

await t.test('closes once', async (t) => {
  const { socket, closed } = open();
  socket.close();
  socket.close();
  t.strictSame(closed, [3]);
  t.match(socket.request(encodeLinkUp(1)), { code: 'EBADF' });
});

interface Reply {
  readonly bytes: Uint8Array;
  /** The sender; 0 is the kernel. */
  readonly port: number;
  /** Carries the sequence of the request before. */
  readonly late?: boolean;
  /** Answers the request at this place of the datagram. */
  readonly index?: number;
}

/** Opens a socket on a kernel that answers the n-th request with the n-th list. */
function open(...answers: readonly (readonly (Reply | number)[])[]) {
  const sent: Uint8Array[] = [];
  const closed: number[] = [];
  let waiting: (Reply | number)[] = [];
  const calls: Partial<Native> = {
    socket: () => 3,
    bind: () => 0,
    setOption: () => -ENOPROTOOPT,
    close: (fd) => closed.push(fd),
    send(_fd, bytes) {
      waiting.push(...(answers[sent.length] ?? []));
      sent.push(bytes.slice());
      return bytes.length;
    },
    receive(_fd, bytes, from) {
      const reply = waiting.shift();
      if (reply === undefined) return -EAGAIN;
      if (typeof reply === 'number') return reply;
      const request = sent.at(-1)!;
      const sequence = new DataView(request.buffer).getUint32(8, LE);
      stampSequence(reply.bytes, reply.late ? sequence - 1 : sequence + (reply.index ?? 0));
      bytes.set(reply.bytes);
      new DataView(from.buffer).setUint32(4, reply.port, LE);
      return reply.bytes.length;
    },
  };
  const opened = RequestSocket.open(calls as Native, 0);
  if (!opened.ok) throw new Error(opened.refusal.message);
  waiting = [];
  return { socket: opened.value, sent, closed };
}

function item(flags = 0): Reply {
  const bytes = new MessageWriter()
    .begin(16, MessageFlag.multi | flags)
    .end()
    .take();
  return { bytes, port: 0 };
}

function done(): Reply {
  const writer = new MessageWriter().begin(MessageType.done, MessageFlag.multi);
  writer.fixed(4);
  return { bytes: writer.end().take(), port: 0 };
}

function error(errno: number): Reply {
  const writer = new MessageWriter().begin(MessageType.error, 0);
  writer.fixed(20).setInt32(0, -errno, LE);
  return { bytes: writer.end().take(), port: 0 };
}

/** Decodes the n-th message of a dump as n. */
function count(): () => number {
  let seen = 0;
  return () => ++seen;
}
