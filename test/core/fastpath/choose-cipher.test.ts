import t from 'tap';
import {
  chooseCipher,
  type CipherCandidate,
  type CipherChoice,
} from '../../../core/fastpath/choose-cipher.ts';
import type { TransportCipher } from '../../../core/fastpath/cipher.ts';
import { ARENA_SIZE, MESSAGE_LENGTH, MESSAGE_SIZE } from '../../../core/fastpath/layout.ts';
import { createPortableCipher } from '../../../core/fastpath/portable-cipher.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';

const arena = new ArrayBuffer(ARENA_SIZE);
const records = new DataView(arena);
const { chacha20poly1305 } = createNobleCrypto();

/** Ciphers on a clock that only they move on. */
class Bench {
  now = 0;

  choose(candidates: readonly CipherCandidate[]): CipherChoice {
    return chooseCipher(candidates, arena, () => this.now);
  }

  pass(ms: number): void {
    this.now += ms;
  }

  /** One that takes so many microseconds a packet. It does its work for single messages only. */
  cipher(
    name: string,
    microseconds: number,
    { onBatch }: { onBatch?: (first: number, count: number) => void } = {},
  ): TransportCipher {
    const real = createPortableCipher(name, chacha20poly1305, arena);
    const work = (operation: 'seal' | 'open', first: number, count: number): void => {
      if (count === 1) real[operation](first, 1);
      this.pass((microseconds * count) / 1000);
      onBatch?.(first, count);
    };
    return {
      name,
      seal: (first, count) => work('seal', first, count),
      open: (first, count) => work('open', first, count),
    };
  }
}

await t.test('the fastest is chosen, wherever it stands', async (t) => {
  const bench = new Bench();
  const choice = bench.choose([bench.cipher('slow', 4), bench.cipher('fast', 1)]);
  t.equal(choice.cipher?.name, 'fast');
  t.same(choice.trials, [
    { name: 'slow', packetsPerSecond: 250_000 },
    { name: 'fast', packetsPerSecond: 1_000_000 },
  ]);
});

await t.test('of two that are equally fast the first is chosen', async (t) => {
  const bench = new Bench();
  t.equal(bench.choose([bench.cipher('a', 2), bench.cipher('b', 2)]).cipher?.name, 'a');
});

await t.test('batches of 64 full packets are measured', async (t) => {
  const bench = new Bench();
  const lengths = new Set<number>();
  let largest = 0;
  const onBatch = (first: number, count: number): void => {
    largest = Math.max(largest, count);
    if (count === 1) return; // also the self-test
    for (let i = 0; i < count; i++) {
      lengths.add(records.getUint32(first + i * MESSAGE_SIZE + MESSAGE_LENGTH, true));
    }
  };
  bench.choose([bench.cipher('a', 1, { onBatch })]);
  t.equal(largest, 64);
  t.same([...lengths], [1420]);
});

await t.test('one that the engine compiles meanwhile is judged by its second turn', async (t) => {
  const bench = new Bench();
  let isCold = true;
  const cold = bench.cipher('cold', 1, {
    onBatch(_first, count) {
      if (isCold) bench.pass(count * 0.005);
    },
  });
  const onBatch = (): void => {
    isCold = false;
  };
  const { cipher, trials } = bench.choose([cold, bench.cipher('warm', 2, { onBatch })]);
  t.equal(cipher?.name, 'cold');
  t.same(trials[0], { name: 'cold', packetsPerSecond: 1_000_000 });
});

await t.test('one that is missing, wrong or failing is reported and passed over', async (t) => {
  const bench = new Bench();
  const right = bench.cipher('right', 1000);
  const choice = bench.choose([
    { name: 'missing', skip: 'this machine lacks it' },
    { ...right, name: 'idle', seal: () => undefined },
    { ...right, name: 'deaf', open: () => undefined },
    {
      ...right,
      name: 'failing',
      seal() {
        throw new Error('no such algorithm');
      },
    },
    right,
  ]);
  t.equal(choice.cipher?.name, 'right');
  t.match(choice.trials, [
    { name: 'missing', skip: 'this machine lacks it' },
    { name: 'idle', skip: 'seals a known message wrongly' },
    { name: 'deaf', skip: 'does not open a known message' },
    { name: 'failing', skip: 'fails: Error: no such algorithm' },
    { name: 'right', packetsPerSecond: 1000 },
  ]);
});

await t.test('without any there is no choice', async (t) => {
  const bench = new Bench();
  t.same(bench.choose([]), { cipher: undefined, trials: [] });
  t.equal(bench.choose([{ name: 'missing', skip: 'gone' }]).cipher, undefined);
});

await t.test('all of it takes at most 10 ms with 3,000 packets a second and more', async (t) => {
  for (const microseconds of [0.5, 1, 7, 25, 100, 300]) {
    const bench = new Bench();
    bench.choose(Array.from({ length: 8 }, (_, i) => bench.cipher(`${i}`, microseconds)));
    t.ok(bench.now <= 10, `${bench.now} ms with ciphers of ${microseconds} µs a packet`);
  }
});

await t.test('when the time is over the rest is left out, and says so', async (t) => {
  const bench = new Bench();
  const choice = bench.choose([
    bench.cipher('slow', 20_000),
    bench.cipher('fast', 1),
    { name: 'missing', skip: 'this machine lacks it' },
  ]);
  t.equal(choice.cipher?.name, 'slow', 'the first is tried whatever it takes');
  t.same(choice.trials.slice(1), [
    { name: 'fast', skip: 'there was no time to try it' },
    { name: 'missing', skip: 'this machine lacks it' },
  ]);
});

await t.test('time is no reason to be left without a cipher', async (t) => {
  const bench = new Bench();
  const slow = bench.cipher('slow', 20_000);
  const deaf = { ...slow, name: 'deaf', open: () => undefined };
  t.equal(bench.choose([deaf, slow]).cipher?.name, 'slow');
});

await t.test('a clock that stands still ends the trial all the same', async (t) => {
  const bench = new Bench();
  const choice = bench.choose([bench.cipher('a', 0), bench.cipher('b', 0)]);
  t.equal(choice.cipher?.name, 'a');
  t.same(choice.trials, [
    { name: 'a', packetsPerSecond: 0 },
    { name: 'b', packetsPerSecond: 0 },
  ]);
});
