import t from 'tap';
import { readFileSync } from 'node:fs';
import {
  initiate,
  readInitiation,
  readInitiationPayload,
  readResponse,
  respond,
  type KeyPair,
} from '../../../core/wireguard/handshake.ts';
import {
  decodeMessage,
  encodeCookieReply,
  encodeInitiation,
  encodeResponse,
  macsOf,
} from '../../../core/wireguard/messages.ts';
import { isLaterTimestamp, TimestampSource } from '../../../core/wireguard/tai64n.ts';
import { decodeHex, encodeHex } from '../../../core/sansio/hex.ts';
import { crypto, SeededRandom } from './network.ts';

const EMPTY = new Uint8Array(0);
const PSK = new Uint8Array(32).fill(9);

const vector = JSON.parse(
  readFileSync(new URL('../../vectors/noise-ikpsk2.json', import.meta.url), 'utf8'),
) as {
  readonly prologue: string;
  readonly initiatorStatic: string;
  readonly responderStatic: string;
  readonly initiatorEphemeral: string;
  readonly responderEphemeral: string;
  readonly presharedKey: string;
  readonly messages: readonly { readonly payload: string; readonly ciphertext: string }[];
};

await t.test('Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s gives the bytes of the vector', async (t) => {
  const [first, second, third, fourth] = vector.messages;
  const initiator = keyPair(vector.initiatorStatic);
  const responder = keyPair(vector.responderStatic);
  const prologue = hex(vector.prologue);
  const presharedKey = hex(vector.presharedKey);
  const staticStatic = shared(initiator, responder);

  const pending = initiate(
    crypto,
    initiator,
    { publicKey: responder.publicKey, staticStatic },
    { ephemeral: keyPair(vector.initiatorEphemeral), payload: hex(first!.payload) },
    prologue,
  )!;
  t.equal(
    encodeHex(concat(pending.ephemeral.publicKey, pending.sealedStatic, pending.sealedPayload)),
    first!.ciphertext,
  );

  const { sealedStatic, sealedPayload } = pending;
  const ephemeral = pending.ephemeral.publicKey;
  const received = readInitiation(crypto, responder, { ephemeral, sealedStatic }, prologue)!;
  t.same(received.remotePublicKey, initiator.publicKey);
  t.same(readInitiationPayload(received, staticStatic, sealedPayload), hex(first!.payload));

  const answer = keyPair(vector.responderEphemeral);
  const response = respond(crypto, received, presharedKey, {
    ephemeral: answer,
    payload: hex(second!.payload),
  })!;
  t.equal(encodeHex(concat(answer.publicKey, response.sealedPayload)), second!.ciphertext);

  const finished = readResponse(crypto, initiator, pending, presharedKey, {
    ephemeral: answer.publicKey,
    sealedPayload: response.sealedPayload,
  });
  if (!finished.ok) throw new Error(finished.why);
  t.same(finished.value.payload, hex(second!.payload));
  t.same(finished.value.keys.sendKey, response.keys.receiveKey);
  t.same(finished.value.keys.receiveKey, response.keys.sendKey);
  const seal = (key: Uint8Array, payload: string) =>
    encodeHex(crypto.chacha20poly1305.seal(key, new Uint8Array(12), hex(payload), EMPTY));
  t.equal(seal(finished.value.keys.sendKey, third!.payload), third!.ciphertext);
  t.equal(seal(response.keys.sendKey, fourth!.payload), fourth!.ciphertext);
});

await t.test('a pending initiation survives a forged response', async (t) => {
  const random = new SeededRandom(3);
  const [own, remote, ephemeral, answer] = [1, 2, 3, 4].map(() => randomKeyPair(random));
  const staticStatic = shared(own!, remote!);
  const pending = initiate(
    crypto,
    own!,
    { publicKey: remote!.publicKey, staticStatic },
    { ephemeral: ephemeral!, payload: new Uint8Array(12) },
  )!;
  const { sealedStatic, sealedPayload } = pending;
  const message = { ephemeral: ephemeral!.publicKey, sealedStatic };
  const received = readInitiation(crypto, remote!, message)!;
  readInitiationPayload(received, staticStatic, sealedPayload);
  const response = respond(crypto, received, PSK, { ephemeral: answer!, payload: EMPTY })!;
  const genuine = { ephemeral: answer!.publicKey, sealedPayload: response.sealedPayload };

  const forged = { ...genuine, sealedPayload: flip(response.sealedPayload, 3) };
  t.match(readResponse(crypto, own!, pending, PSK, forged), { ok: false, why: 'not-authentic' });
  const lowOrder = { ...genuine, ephemeral: new Uint8Array(32) };
  t.match(readResponse(crypto, own!, pending, PSK, lowOrder), { why: 'low-order-point' });
  const other = PSK.map((byte) => byte ^ 1);
  t.match(readResponse(crypto, own!, pending, other, genuine), { why: 'not-authentic' });
  t.match(readResponse(crypto, own!, pending, PSK, genuine), { ok: true });
});

await t.test('low-order points give no handshake', async (t) => {
  const random = new SeededRandom(4);
  const [own, ephemeral] = [1, 2].map(() => randomKeyPair(random));
  for (const publicKey of [new Uint8Array(32), Uint8Array.of(1, ...new Uint8Array(31))]) {
    const remote = { publicKey, staticStatic: PSK };
    const message = { ephemeral: ephemeral!, payload: EMPTY };
    t.equal(initiate(crypto, own!, remote, message), undefined);
    const sealedStatic = new Uint8Array(48);
    t.equal(readInitiation(crypto, own!, { ephemeral: publicKey, sealedStatic }), undefined);
  }
});

await t.test('messages have the layout of the whitepaper §5.4', async (t) => {
  const fill = (value: number, length: number) => new Uint8Array(length).fill(value);
  const initiation = encodeInitiation({
    sender: 0x04030201,
    ephemeral: fill(0xaa, 32),
    sealedStatic: fill(0xbb, 48),
    sealedTimestamp: fill(0xcc, 28),
  });
  const zeros = '00'.repeat(32);
  const aa = 'aa'.repeat(32);
  t.equal(
    encodeHex(initiation),
    `0100000001020304${aa}${'bb'.repeat(48)}${'cc'.repeat(28)}${zeros}`,
  );
  const response = encodeResponse({
    sender: 0x04030201,
    receiver: 0xf4f3f2f1,
    ephemeral: fill(0xaa, 32),
    sealedEmpty: fill(0xdd, 16),
  });
  t.equal(encodeHex(response), `0200000001020304f1f2f3f4${aa}${'dd'.repeat(16)}${zeros}`);
  const cookieReply = encodeCookieReply({
    receiver: 0xf4f3f2f1,
    nonce: fill(0xee, 24),
    sealedCookie: fill(0xff, 32),
  });
  t.equal(encodeHex(cookieReply), `03000000f1f2f3f4${'ee'.repeat(24)}${'ff'.repeat(32)}`);
  const macs = macsOf(response);
  t.same([macs.beforeMac1.length, macs.beforeMac2.length], [60, 76]);

  t.match(decodeMessage(initiation), { value: { type: 'initiation', sender: 0x04030201 } });
  t.match(decodeMessage(response), { value: { type: 'response', receiver: 0xf4f3f2f1 } });
  t.match(decodeMessage(cookieReply), { value: { type: 'cookie-reply', receiver: 0xf4f3f2f1 } });
});

await t.test(
  'a message of another length or type, or with reserved bits, is malformed',
  async (t) => {
    const lengths = new Map([
      [1, 148],
      [2, 92],
      [3, 64],
    ]);
    for (let type = 0; type < 256; type++) {
      for (let length = 0; length < 160; length++) {
        const bytes = new Uint8Array(length);
        if (length > 0) bytes[0] = type;
        const expected = lengths.get(type) === length || (type === 4 && length >= 32);
        if (decodeMessage(bytes).ok !== expected) t.fail(`type ${type}, length ${length}`);
      }
    }
    for (const reserved of [1, 2, 3]) {
      const bytes = new Uint8Array(148);
      bytes.set([1, 0, 0, 0]);
      bytes[reserved] = 1;
      t.notOk(decodeMessage(bytes).ok);
    }
  },
);

await t.test('a message is decoded where it lies in a larger buffer', async (t) => {
  const buffer = new Uint8Array(300);
  buffer.set([2, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0], 100);
  t.match(decodeMessage(buffer.subarray(100, 192)), { value: { sender: 5, receiver: 6 } });
});

await t.test('TAI64N timestamps are those of the specification, rounded down', async (t) => {
  // https://cr.yp.to/libtai/tai64.html: 1992-06-02 08:07:09 TAI is 400000002a2b2c2d, 10 s ahead here.
  const unixSeconds = 0x2a2b2c2d - 10;
  t.equal(encodeHex(new TimestampSource().next(unixSeconds * 1000)), '400000002a2b2c2d00000000');
  const nanoseconds = (ms: number) =>
    new DataView(new TimestampSource().next(unixSeconds * 1000 + ms).buffer).getUint32(8);
  for (const ms of [0, 1, 16.7, 16.8, 500, 999, 999.99]) {
    t.equal(nanoseconds(ms), Math.floor((ms * 1e6) / 2 ** 24) * 2 ** 24, `${ms} ms`);
  }
  t.equal(encodeHex(new TimestampSource().next(2 ** 32 * 1000)), '400000010000000a00000000');
});

await t.test('timestamps increase while the wall clock stands still or steps back', async (t) => {
  const source = new TimestampSource();
  let before = source.next(1_800_000_000_000);
  for (const unixMs of [1_800_000_000_000, 1_800_000_000_001, 1_799_000_000_000, 0, -5, 1.5]) {
    const next = source.next(unixMs);
    t.ok(isLaterTimestamp(next, before), `${unixMs}`);
    t.notOk(isLaterTimestamp(before, next));
    t.notOk(isLaterTimestamp(next, next));
    before = next;
  }
  for (let i = 0; i < 200; i++) {
    const next = source.next(0);
    if (!isLaterTimestamp(next, before)) t.fail(`step ${i}`);
    if (new DataView(next.buffer).getUint32(8) >= 1e9) t.fail('a second has 1e9 nanoseconds');
    before = next;
  }
  t.ok(isLaterTimestamp(source.next(1_900_000_000_000), before), 'the wall clock has caught up');
});

function hex(text: string): Uint8Array {
  const bytes = decodeHex(text);
  if (bytes === undefined) throw new Error('not hexadecimal');
  return bytes;
}

function keyPair(privateKeyHex: string): KeyPair {
  const privateKey = hex(privateKeyHex);
  return { privateKey, publicKey: crypto.x25519.publicKey(privateKey) };
}

function randomKeyPair(random: SeededRandom): KeyPair {
  const privateKey = new Uint8Array(32);
  random.fill(privateKey);
  return { privateKey, publicKey: crypto.x25519.publicKey(privateKey) };
}

function shared(a: KeyPair, b: KeyPair): Uint8Array {
  return crypto.x25519.sharedSecret(a.privateKey, b.publicKey)!;
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

function flip(bytes: Uint8Array, index: number): Uint8Array {
  return bytes.map((byte, i) => (i === index ? byte ^ 1 : byte));
}
