import { ipAddressFromBytes, type IpFamily } from '../../../core/net/ip-address.ts';
import { AllowedIps } from '../../../core/wireguard/allowed-ips.ts';
import { less } from '../samples.ts';
import { sink, timePerCall, type Finding } from './micro-bench.ts';

const metricOf = (family: IpFamily) => less(`look up IPv${family}`, 'ns');
const insertion = less('insert', 'ns');
const memory = less('memory a prefix', 'bytes');

export const routeMetrics = [metricOf(4), metricOf(6), insertion, memory];

const SIZES = [100, 10_000, 100_000] as const;
/** Less memory than that of so many is lost in that of everything else. */
const SMALLEST_TO_WEIGH = 10_000;
/** Looked up in one call of the loop, each another address. */
const ADDRESSES = 1024;

/** The table of allowed IPs with prefixes of mixed lengths; every address asked for has a route. */
export function routes(seconds: number): Finding[] {
  const warmUp = new AllowedIps();
  for (let i = 0; i < 10_000; i++)
    warmUp.insert(prefixOf(i % 2 === 0 ? 4 : 6, Math.random).prefix, i);
  return SIZES.flatMap((size) => {
    const subject = `${size.toLocaleString('en')} prefixes`;
    const random = generator(size);
    const prefixes = Array.from({ length: size }, (_, i) => prefixOf(i % 2 === 0 ? 4 : 6, random));
    const before = memoryUsed();
    const started = performance.now();
    const table = new AllowedIps();
    prefixes.forEach(({ prefix }, i) => table.insert(prefix, i));
    const inserted = performance.now();
    const bytes = memoryUsed() - before;
    const lookups = ([4, 6] as const).map((family) => {
      const candidates = prefixes.filter(
        (prefix) => prefix.bytes.length === (family === 4 ? 4 : 16),
      );
      const addresses = Array.from({ length: ADDRESSES }, () => {
        const { bytes: host } = candidates[Math.floor(random() * candidates.length)] ?? {
          bytes: [],
        };
        const address = Uint8Array.from(host);
        address[address.length - 1] = random() * 256;
        return address;
      });
      const perCall = timePerCall(Math.min(seconds, 1), () => {
        for (const address of addresses) sink.value = table.lookupBytes(address, 0, family);
      });
      return { subject, metric: metricOf(family), value: (perCall * 1e6) / ADDRESSES };
    });
    return [
      ...lookups,
      { subject, metric: insertion, value: ((inserted - started) * 1e6) / size },
      ...(size < SMALLEST_TO_WEIGH ? [] : [{ subject, metric: memory, value: bytes / size }]),
    ];
  });
}

/** A prefix that leaves the last byte of an address open, as a route in use does. */
function prefixOf(family: IpFamily, random: () => number) {
  const bytes = Uint8Array.from({ length: family === 4 ? 4 : 16 }, () => random() * 256);
  bytes[0] = family === 4 ? 10 : 0x20;
  bytes[bytes.length - 1] = 0;
  const [shortest, longest] = family === 4 ? [16, 24] : [32, 120];
  const length = shortest + Math.floor(random() * (longest - shortest + 1));
  for (let bit = length; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) & ~(0x80 >> (bit & 7));
  }
  return { bytes, prefix: { address: ipAddressFromBytes(bytes), length } };
}

/** mulberry32: the same table in every run. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let word = Math.imul(state ^ (state >>> 15), 1 | state);
    word = (word + Math.imul(word ^ (word >>> 7), 61 | word)) ^ word;
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** In bytes, after a collection. */
function memoryUsed(): number {
  globalThis.gc?.();
  const { heapUsed: objects, arrayBuffers } = process.memoryUsage();
  return objects + arrayBuffers;
}
