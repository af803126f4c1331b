import type { TransportCipher } from '../../../core/fastpath/cipher.ts';
import {
  KEY_SIZE,
  MESSAGE_COUNTER_LOW,
  MESSAGE_HEADER_SIZE,
  MESSAGE_KEY,
  MESSAGE_LENGTH,
  MESSAGE_OFFSET,
  MESSAGE_SIZE,
  OUT,
  OUT_MESSAGES,
  TAG_SIZE,
} from '../../../core/fastpath/layout.ts';
import { CIPHERS, createFastPath, type FastPath } from '../../../openwrt/fast-path.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../../plugins/crypto-node/index.ts';
import { loadNative } from '../../../plugins/platform-node/index.ts';
import { more } from '../samples.ts';
import { NATIVE_FILE, type Finding } from './micro-bench.ts';

const LENGTHS = [64, 1420] as const;
const OPERATIONS = ['seal', 'open'] as const;

const metricOf = (operation: (typeof OPERATIONS)[number], length: number) =>
  more(`${operation} ${length} bytes`, 'packets/s');

export const cipherMetrics = OPERATIONS.flatMap((operation) =>
  LENGTHS.map((length) => metricOf(operation, length)),
);

/** Batches as the packet path makes them, in place in the arena. */
const BATCH = 64;
/** Of each cipher in turn, so that all meet the same moods of the machine. */
const SLICES = 10;

/** Every transport cipher that the daemon can take. */
export function cipher(seconds: number): Finding[] {
  const crypto = createNodeCrypto(createNobleCrypto());
  const loaded = loadNative(NATIVE_FILE);
  const native = 'skip' in loaded ? undefined : loaded;
  const findings: Finding[] = [];
  const stages: Stage[] = [];
  for (const name of CIPHERS) {
    try {
      stages.push(
        ...LENGTHS.map((length) => new Stage(createFastPath(crypto, name, native), length)),
      );
    } catch (error) {
      findings.push({ subject: name, why: error instanceof Error ? error.message : String(error) });
    }
  }
  const sliceMs = (Math.min(seconds, 1) * 1000) / SLICES;
  for (const stage of stages) stage.run(sliceMs); // warms up
  for (const stage of stages) stage.reset();
  for (let slice = 0; slice < SLICES; slice++) for (const stage of stages) stage.run(sliceMs);
  return [...findings, ...stages.flatMap((stage) => stage.findings())];
}

/** A batch of messages of one length in the arena of a fast path. */
class Stage {
  readonly #cipher: TransportCipher;
  readonly #length: number;
  readonly #arena: Uint8Array;
  readonly #spent = { seal: 0, open: 0 };
  #batches = 0;

  constructor({ kernel, cipher }: FastPath, length: number) {
    this.#cipher = cipher;
    this.#length = length;
    this.#arena = new Uint8Array(kernel.memory);
    const view = new DataView(kernel.memory);
    const keyAt = OUT;
    this.#arena.fill(7, keyAt, keyAt + KEY_SIZE);
    const pitch = MESSAGE_HEADER_SIZE + length + TAG_SIZE;
    for (let i = 0; i < BATCH; i++) {
      const record = OUT_MESSAGES + i * MESSAGE_SIZE;
      view.setUint32(record + MESSAGE_OFFSET, OUT + KEY_SIZE + i * pitch, true);
      view.setUint32(record + MESSAGE_LENGTH, length, true);
      view.setUint32(record + MESSAGE_COUNTER_LOW, i, true);
      view.setUint32(record + MESSAGE_KEY, keyAt, true);
    }
  }

  /** What was opened is sealed again, so that each message is authentic. */
  run(ms: number): void {
    const end = performance.now() + ms;
    for (let now = performance.now(); now < end; this.#batches++) {
      this.#cipher.seal(OUT_MESSAGES, BATCH);
      const sealed = performance.now();
      this.#cipher.open(OUT_MESSAGES, BATCH);
      const opened = performance.now();
      this.#spent.seal += sealed - now;
      this.#spent.open += opened - sealed;
      now = opened;
    }
  }

  reset(): void {
    this.#spent.seal = 0;
    this.#spent.open = 0;
    this.#batches = 0;
  }

  findings(): Finding[] {
    return OPERATIONS.map((operation) => ({
      subject: this.#cipher.name,
      metric: metricOf(operation, this.#length),
      value: (this.#batches * BATCH * 1000) / this.#spent[operation],
    }));
  }
}
