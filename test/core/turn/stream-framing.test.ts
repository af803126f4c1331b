import fc from 'fast-check';
import t from 'tap';
import { encodeHex } from '../../../core/sansio/hex.ts';
import { encodeStun } from '../../../core/stun/message.ts';
import { frame, StreamFraming } from '../../../core/stun/stream-framing.ts';
import {
  decodeChannelData,
  encodeChannelData,
  isChannelData,
} from '../../../core/turn/channel-data.ts';
import { TurnStreamFraming } from '../../../core/turn/stream-framing.ts';
import { crypto } from './turn-scene.ts';

const STUN = encodeStun(
  {
    class: 'request',
    method: 'binding',
    transactionId: new Uint8Array(12),
    attributes: { software: 'culvert' },
  },
  { crypto },
);

await t.test(
  'ChannelData is channel, length and data, padded on a stream (RFC 8656 §12.4)',
  async (t) => {
    const data = { channel: 0x4001, payload: new Uint8Array([1, 2, 3, 4, 5]) };
    t.equal(encodeHex(encodeChannelData(data, 'udp')), '400100050102030405');
    t.equal(encodeHex(encodeChannelData(data, 'stream')), '400100050102030405000000');
    for (const transport of ['udp', 'stream'] as const) {
      t.same(decodeChannelData(encodeChannelData(data, transport)), data);
    }
    t.same(decodeChannelData(new Uint8Array([0x4f, 0xff, 0, 0])), {
      channel: 0x4fff,
      payload: new Uint8Array(0),
    });
  },
);

await t.test('what is cut short or of a reserved number is no ChannelData', async (t) => {
  const message = encodeChannelData({ channel: 0x4abc, payload: new Uint8Array(9) }, 'udp');
  for (let length = 0; length < message.length; length++) {
    t.equal(decodeChannelData(message.subarray(0, length)), undefined);
  }
  for (const first of [0x00, 0x3f, 0x50, 0x7f, 0x80, 0xff]) {
    t.notOk(isChannelData(new Uint8Array([first, 0, 0, 0])));
    t.equal(decodeChannelData(new Uint8Array([first, 0, 0, 0])), undefined);
  }
});

const kinds = {
  'RFC 4571': {
    make: () => new StreamFraming(),
    frames: [frame(STUN), frame(new Uint8Array(1)), frame(new Uint8Array(65_535))],
    payload: (framed: Uint8Array) => framed.subarray(2),
  },
  TURN: {
    make: () => new TurnStreamFraming(),
    frames: [
      STUN,
      encodeChannelData({ channel: 0x4000, payload: new Uint8Array(5).fill(7) }, 'stream'),
      encodeChannelData({ channel: 0x4fff, payload: new Uint8Array(0) }, 'stream'),
      encodeChannelData({ channel: 0x4000, payload: new Uint8Array(65_535) }, 'stream'),
    ],
    payload: (framed: Uint8Array) => framed,
  },
};

for (const [name, { make, frames, payload }] of Object.entries(kinds)) {
  await t.test(`${name}: frames come out whole however the stream is cut`, async (t) => {
    const cuts = fc.array(
      fc.oneof(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 70_000 })),
      {
        minLength: 1,
      },
    );
    const order = fc.array(fc.nat(frames.length - 1), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(order, cuts, (indices, sizes) => {
        const chosen = indices.map((index) => frames[index]!);
        const stream = Buffer.concat(chosen);
        const framing = make();
        const got: string[] = [];
        for (let at = 0, i = 0; at < stream.length; i++) {
          // Lent for the call: what was kept of it must have been copied.
          const chunk = Uint8Array.from(stream.subarray(at, at + sizes[i % sizes.length]!));
          framing.push(chunk);
          for (let one; (one = framing.next()) !== undefined;) got.push(encodeHex(one));
          at += chunk.length;
          chunk.fill(0xee);
        }
        t.same(
          got,
          chosen.map((framed) => encodeHex(payload(framed))),
        );
        return !framing.isBroken;
      }),
      { numRuns: 30 },
    );
  });

  await t.test(
    `${name}: whole frames of a chunk are not copied, and stay until the next push`,
    async (t) => {
      const [first, second] = [frames[0]!, frames[1]!];
      const framing = make();
      framing.push(first.subarray(0, 3));
      t.equal(framing.next(), undefined);
      const chunk = Uint8Array.from(
        Buffer.concat([first.subarray(3), second, first, second.subarray(0, 2)]),
      );
      framing.push(chunk);
      const got = [framing.next()!, framing.next()!, framing.next()!];
      t.equal(framing.next(), undefined);
      t.same(got, [first, second, first].map(payload));
      t.not(got[0]!.buffer, chunk.buffer, 'this one began earlier');
      t.equal(got[1]!.buffer, chunk.buffer);
      t.equal(got[2]!.buffer, chunk.buffer);
    },
  );

  await t.test(
    `${name}: any bytes give frames or break the stream, and nothing is thrown`,
    async (t) => {
      fc.assert(
        fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 40 }), (chunks) => {
          const framing = make();
          for (const chunk of chunks) {
            framing.push(chunk);
            while (framing.next() !== undefined);
          }
          return name === 'TURN' || !framing.isBroken;
        }),
      );
      t.pass();
    },
  );
}

await t.test('RFC 4571: an empty frame carries nothing', async (t) => {
  const framing = new StreamFraming();
  framing.push(new Uint8Array([0, 0, 0, 0, 0, 1, 9, 0, 0]));
  t.same(framing.next(), new Uint8Array([9]));
  t.equal(framing.next(), undefined);
});

await t.test('TURN: what is neither STUN nor ChannelData breaks the stream for good', async (t) => {
  const badCookie = STUN.slice();
  badCookie[4]! ^= 1;
  const badLength = STUN.slice();
  badLength[3]! += 1;
  for (const bytes of [
    badCookie,
    badLength,
    new Uint8Array([0x50, 0, 0, 0]),
    new Uint8Array([0x80]),
  ]) {
    for (const size of [1, bytes.length]) {
      const framing = new TurnStreamFraming();
      for (let at = 0; at < bytes.length; at += size) {
        framing.push(bytes.subarray(at, at + size));
        t.equal(framing.next(), undefined);
      }
      t.ok(framing.isBroken);
      framing.push(STUN);
      t.equal(framing.next(), undefined);
    }
  }
});
