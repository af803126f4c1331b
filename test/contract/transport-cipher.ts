import { chacha20 } from '@noble/ciphers/chacha.js';
import type { Test } from 'tap';
import type { TransportCipher } from '../../core/fastpath/cipher.ts';
import {
  KEY_SIZE,
  MESSAGE_AUTHENTIC,
  MESSAGE_COUNTER_HIGH,
  MESSAGE_COUNTER_LOW,
  MESSAGE_HEADER_SIZE,
  MESSAGE_KEY,
  MESSAGE_LENGTH,
  MESSAGE_OFFSET,
  MESSAGE_PEER,
  MESSAGE_SESSION,
  MESSAGE_SIZE,
  OUT,
  TAG_SIZE,
} from '../../core/fastpath/layout.ts';
import type { Aead } from '../../core/sansio/crypto.ts';
import { decodeHex, encodeHex } from '../../core/sansio/hex.ts';
import { encodeUtf8 } from '../../core/sansio/utf8.ts';

/** What every transport cipher does in `arena`; it overwrites what lies at OUT. */
export async function transportCipherContract(
  t: Test,
  cipher: TransportCipher,
  arena: ArrayBuffer,
  oracle: Aead,
): Promise<void> {
  const bench = new Bench(cipher, arena, oracle);

  await t.test('encrypts the example of RFC 8439 §2.4.2', async (t) => {
    // Its nonce begins with 32 zero bits as ours do: the rest is a counter of 0x4a000000.
    bench.seal([{ key: SUNSCREEN_KEY, counter: 0x4a00_0000n, plaintext: SUNSCREEN }]);
    t.equal(encodeHex(bench.payload(0)), SUNSCREEN_CIPHERTEXT);
  });

  await t.test('seals and opens every length up to 600 bytes at every alignment', async (t) => {
    const wrong: string[] = [];
    for (let length = 0; length <= 600; length++) {
      const difference = bench.sealAndOpen([messageOf(length, length)], length % 16);
      if (difference !== undefined) wrong.push(`${length} bytes: ${difference}`);
    }
    t.same(wrong, []);
  });

  await t.test('seals and opens long messages', async (t) => {
    for (const length of [1024, 1216, 1217, 1408, 1420, 1424, 8999, 65_000, 65_519, 65_536]) {
      t.equal(bench.sealAndOpen([messageOf(length, length)]), undefined, `${length} bytes`);
    }
  });

  await t.test('works through a batch of all lengths with several keys', async (t) => {
    for (let round = 0; round < 8; round++) {
      const lengths = Array.from({ length: 64 }, (_, i) => (i * 977 + round * 131) % 1500);
      const messages = lengths.map((length, i) => messageOf(length, round * 64 + i, i % 5));
      t.equal(bench.sealAndOpen(messages), undefined, `round ${round}`);
    }
    const equal = Array.from({ length: 64 }, (_, i) => messageOf(i < 63 ? 1408 : 700, i, 1));
    t.equal(bench.sealAndOpen(equal), undefined, 'a train');
    const small = Array.from({ length: 63 }, (_, i) => messageOf(i % 3 === 0 ? 0 : 48, i, i % 2));
    t.equal(bench.sealAndOpen(small), undefined, 'keepalives and acknowledgements');
  });

  await t.test('does nothing to an empty batch', async (t) => {
    bench.place([messageOf(100, 1)]);
    const before = bench.snapshot();
    cipher.seal(OUT, 0);
    cipher.open(OUT, 0);
    t.same(bench.snapshot(), before);
  });

  await t.test('takes all 64 bits of the counter', async (t) => {
    for (const counter of [0n, 1n, 0xffff_ffffn, 0x1_0000_0000n, 0xffff_ffff_ffff_dffen]) {
      const message = { ...messageOf(300, 4), counter };
      t.equal(bench.sealAndOpen([message]), undefined, `counter ${counter}`);
    }
  });

  await t.test('opens nothing that was changed anywhere, and all of the others', async (t) => {
    const wrong: string[] = [];
    for (const length of [0, 1, 48, 192, 193, 448, 450, 1408]) {
      const messages = Array.from({ length: 3 }, (_, i) => messageOf(length, i, (i + 1) >> 1));
      for (let changed = 0; changed < length + TAG_SIZE; changed += 1 + (length >> 5)) {
        bench.seal(messages);
        bench.flip(1, MESSAGE_HEADER_SIZE + changed);
        bench.open(messages.length);
        const authentic = messages.map((_, i) => bench.authentic(i)).join();
        if (authentic !== '1,0,1') wrong.push(`byte ${changed} of ${length}: ${authentic}`);
      }
    }
    t.same(wrong, []);
  });

  await t.test('opens nothing under another key, counter or length', async (t) => {
    const message = messageOf(320, 6);
    const changes: Record<string, (record: DataView) => void> = {
      counter: (record) => record.setUint32(MESSAGE_COUNTER_LOW, 7, true),
      'high half of the counter': (record) => record.setUint32(MESSAGE_COUNTER_HIGH, 1, true),
      key: (record) => record.setUint32(MESSAGE_KEY, OUT + MESSAGES_AT, true),
      length: (record) => record.setUint32(MESSAGE_LENGTH, 304, true),
    };
    for (const [name, change] of Object.entries(changes)) {
      bench.seal([message]);
      change(bench.record(0));
      bench.open(1);
      t.equal(bench.authentic(0), 0, name);
    }
  });

  await t.test('gets Poly1305 right where its accumulator meets the prime', async (t) => {
    for (const target of EDGES) {
      for (const length of [32, 80, 208, 464]) {
        const message = messageThatEndsAt(target, length);
        const wrong = bench.sealAndOpen([message]);
        t.equal(wrong, undefined, `${length} bytes, accumulator ${target}`);
      }
    }
  });

  await t.test('gets Poly1305 right when the ciphertext is all ones or all zeros', async (t) => {
    for (const fill of [0xff, 0x00]) {
      for (const length of [16, 64, 256, 1408]) {
        for (let seed = 0; seed < 16; seed++) {
          const message = messageOf(length, seed, seed);
          const ciphertext = new Uint8Array(length).fill(fill);
          const plaintext = xor(ciphertext, keyStream(message, length));
          t.equal(bench.sealAndOpen([{ ...message, plaintext }]), undefined);
        }
      }
    }
  });
}

interface Message {
  readonly key: Uint8Array;
  readonly counter: bigint;
  readonly plaintext: Uint8Array;
}

/** Lays messages out in the arena, with a canary around each, and compares with the oracle. */
class Bench {
  readonly #cipher: TransportCipher;
  readonly #arena: ArrayBuffer;
  readonly #bytes: Uint8Array;
  readonly #oracle: Aead;
  /** Behind the last message and a canary. */
  #end = OUT;

  constructor(cipher: TransportCipher, arena: ArrayBuffer, oracle: Aead) {
    this.#cipher = cipher;
    this.#arena = arena;
    this.#bytes = new Uint8Array(arena);
    this.#oracle = oracle;
  }

  /** Seals and opens; returns what went wrong. */
  sealAndOpen(messages: readonly Message[], alignment?: number): string | undefined {
    this.place(messages, alignment);
    const wanted = this.snapshot();
    const sealed = messages.map(({ key, counter, plaintext }) =>
      this.#oracle.seal(key, nonceOf(counter), plaintext, new Uint8Array(0)),
    );
    sealed.forEach((bytes, i) => wanted.set(bytes, this.#payloadAt(i) - OUT));
    this.#cipher.seal(OUT, messages.length);
    let difference = firstDifference(this.snapshot(), wanted);
    if (difference !== undefined) return `sealed differently at ${difference}`;

    this.open(messages.length);
    for (const [i, { plaintext }] of messages.entries()) {
      if (this.authentic(i) !== 1) return `message ${i} does not open`;
      wanted.set(plaintext, this.#payloadAt(i) - OUT);
      wanted.set([1, 0, 0, 0], i * MESSAGE_SIZE + MESSAGE_AUTHENTIC);
    }
    difference = firstDifference(this.snapshot(), wanted);
    return difference === undefined ? undefined : `opened differently at ${difference}`;
  }

  seal(messages: readonly Message[]): void {
    this.place(messages);
    this.#cipher.seal(OUT, messages.length);
  }

  open(count: number): void {
    this.#cipher.open(OUT, count);
  }

  /** Writes the records, then the keys, each once, then the messages. */
  place(messages: readonly Message[], alignment = 0): void {
    const size = messages.reduce((sum, { plaintext }) => sum + plaintext.length + 64, 0);
    this.#end = OUT + MESSAGES_AT + size + 256;
    this.#bytes.fill(CANARY, OUT, this.#end);
    let at = OUT + MESSAGES_AT + alignment;
    const keys = [...new Set(messages.map(({ key }) => encodeHex(key)))];
    for (const [i, { key, counter, plaintext }] of messages.entries()) {
      const keyAt = OUT + KEYS_AT + keys.indexOf(encodeHex(key)) * (KEY_SIZE + 1);
      this.#bytes.set(key, keyAt);
      this.#bytes.set(plaintext, at + MESSAGE_HEADER_SIZE);
      const record = this.record(i);
      record.setUint32(MESSAGE_OFFSET, at, true);
      record.setUint32(MESSAGE_LENGTH, plaintext.length, true);
      record.setUint32(MESSAGE_COUNTER_LOW, Number(counter & 0xffff_ffffn), true);
      record.setUint32(MESSAGE_COUNTER_HIGH, Number(counter >> 32n), true);
      record.setUint32(MESSAGE_KEY, keyAt, true);
      record.setUint32(MESSAGE_AUTHENTIC, 0xdead, true);
      record.setUint32(MESSAGE_PEER, 0xfeed, true);
      record.setUint32(MESSAGE_SESSION, 0xf00d, true);
      // An odd gap now and then, so that neighbours differ in alignment.
      at += MESSAGE_HEADER_SIZE + plaintext.length + TAG_SIZE + (i % 3);
    }
  }

  snapshot(): Uint8Array {
    return this.#bytes.slice(OUT, this.#end);
  }

  record(i: number): DataView {
    return new DataView(this.#arena, OUT + i * MESSAGE_SIZE, MESSAGE_SIZE);
  }

  payload(i: number): Uint8Array {
    const at = this.#payloadAt(i);
    return this.#bytes.slice(at, at + this.record(i).getUint32(MESSAGE_LENGTH, true));
  }

  authentic(i: number): number {
    return this.record(i).getUint32(MESSAGE_AUTHENTIC, true);
  }

  flip(i: number, byte: number): void {
    this.#bytes[this.record(i).getUint32(MESSAGE_OFFSET, true) + byte]! ^= 0x80;
  }

  #payloadAt(i: number): number {
    return this.record(i).getUint32(MESSAGE_OFFSET, true) + MESSAGE_HEADER_SIZE;
  }
}

const CANARY = 0xa5;
const KEYS_AT = 64 * MESSAGE_SIZE;
const MESSAGES_AT = KEYS_AT + 64 * (KEY_SIZE + 1) + 256;

const SUNSCREEN_KEY = Uint8Array.from({ length: KEY_SIZE }, (_, i) => i);
const SUNSCREEN = encodeUtf8(
  "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
);
const SUNSCREEN_CIPHERTEXT =
  '6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab8f593dabcd62b357' +
  '1639d624e65152ab8f530c359f0861d807ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736' +
  '5af90bbf74a35be6b40b8eedf2785e42874d';

/** A message with bytes without a pattern, the same for the same seed. */
function messageOf(length: number, seed: number, key = seed): Message {
  const noise = (size: number, start: number) =>
    chacha20(new Uint8Array(32).fill(start), new Uint8Array(12).fill(seed), new Uint8Array(size));
  return {
    key: noise(KEY_SIZE, key % 256),
    counter: BigInt(seed) << 7n,
    plaintext: noise(length, 77),
  };
}

function nonceOf(counter: bigint): Uint8Array {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setBigUint64(4, counter, true);
  return nonce;
}

function keyStream({ key, counter }: Message, length: number, firstBlock = 1): Uint8Array {
  return chacha20(key, nonceOf(counter), new Uint8Array(length), undefined, firstBlock);
}

function firstDifference(a: Uint8Array, b: Uint8Array): number | undefined {
  if (Buffer.compare(a, b) === 0) return undefined;
  return a.findIndex((byte, i) => byte !== b[i]);
}

function xor(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((byte, i) => byte ^ b[i]!);
}

/* Poly1305 in big integers: RFC 8439 §2.5. */

const P = 2n ** 130n - 5n;

/** Where a final reduction goes wrong: around 0, p and the limits of words of 26, 32 and 64 bits. */
const EDGES = [0n, 1n, 4n, 5n, 2n ** 128n, 2n ** 129n, P >> 1n]
  .flatMap((value) => [value, P - 1n - value, value + 2n ** 26n, value + 2n ** 32n - 1n])
  .concat([
    2n ** 128n - 1n,
    2n ** 128n - 6n,
    2n ** 64n - 1n,
    2n ** 104n - 1n,
    3n * 2n ** 128n - 1n,
  ]);

/**
 * Returns a message of whole blocks whose ciphertext brings Poly1305's accumulator to `target` in the
 * end. The last block is solved for; about every fourth random start has a solution of 128 bits.
 */
function messageThatEndsAt(target: bigint, length: number): Message {
  for (let seed = 0; ; seed++) {
    const message = messageOf(length - 16, seed);
    const r = littleEndian(keyStream(message, 16, 0)) & 0x0ffffffc_0ffffffc_0ffffffc_0fffffffn;
    const inverse = power(r, P - 2n);
    let h = 0n;
    for (let i = 0; i < length - 16; i += 16) {
      h = ((h + littleEndian(message.plaintext.subarray(i, i + 16)) + 2n ** 128n) * r) % P;
    }
    const lengths = (BigInt(length) << 64n) + 2n ** 128n;
    const last = modulo((target * inverse - lengths) * inverse - h - 2n ** 128n);
    if (last >= 2n ** 128n) continue;
    const ciphertext = new Uint8Array(length);
    ciphertext.set(message.plaintext);
    ciphertext.set(decodeHex(last.toString(16).padStart(32, '0'))!.reverse(), length - 16);
    return { ...message, plaintext: xor(ciphertext, keyStream(message, length)) };
  }
}

function littleEndian(bytes: Uint8Array): bigint {
  return BigInt(`0x${encodeHex(bytes.slice().reverse())}`);
}

function modulo(value: bigint): bigint {
  return ((value % P) + P) % P;
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (; exponent > 0n; exponent >>= 1n) {
    if ((exponent & 1n) === 1n) result = (result * base) % P;
    base = (base * base) % P;
  }
  return result;
}
