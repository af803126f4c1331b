import { SeededRandom } from '../../sim/seeded-random.ts';

/** As long as names are. */
const HOSTS = ['www.', '', 'api.', 'cdn-17.assets.', 'telemetry.eu-central-1.', 'i.', 'login.'];

/** Names that have addresses, the popular ones first. */
export const ORDINARY_NAMES: readonly string[] = Array.from({ length: 20_000 }, (_, rank) => {
  return `${HOSTS[rank % HOSTS.length] ?? ''}site-${rank}.example`;
});

/** Whatever stands below it has an address, so that each name is asked for once. */
export const FRESH_ZONE = 'fresh.example';

/** Names of a resource: who asks for them is answered by the forwarder itself. */
export const RESOURCE_ZONE = 'corp.example';
export const RESOURCE_ADDRESS = '100.96.0.1';
const RESOURCE_NAMES = 40;

const ORDINARY_TYPES = [
  ['A', 0.5],
  ['AAAA', 0.3],
  ['HTTPS', 0.2],
] as const;

/** Of all queries. */
const MISSING = 0.08;
const RESOURCES = 0.03;

/** Misspelt names, search domains that devices append: the same ones again and again. */
const MISSING_NAMES = 2_000;

/**
 * What the hosts of a LAN ask for, a line each as dnsperf reads them: names by their popularity (Zipf's law,
 * with an exponent of 1), each for an address of either family and for HTTPS records; some that do not exist;
 * some of a resource. The same in every run.
 */
export function realisticQueries(count: number): string {
  const random = new SeededRandom(1);
  const ordinary = zipf(ORDINARY_NAMES.length, random);
  const missing = zipf(MISSING_NAMES, random);
  const resource = zipf(RESOURCE_NAMES, random);
  const line = (): string => {
    const kind = random.fraction();
    const type = typeOf(random.fraction());
    if (kind < RESOURCES) return `app${resource()}.${RESOURCE_ZONE} ${type}`;
    if (kind < RESOURCES + MISSING) return `wpad-${missing()}.lan-search.example ${type}`;
    return `${ORDINARY_NAMES[ordinary()] ?? ''} ${type}`;
  };
  return `${Array.from({ length: count }, line).join('\n')}\n`;
}

/** Questions none of which was asked before, if not with the same word. */
export function freshQueries(count: number, word: string): string {
  return `${Array.from({ length: count }, (_, i) => `${word}${i}.${FRESH_ZONE} A`).join('\n')}\n`;
}

function typeOf(fraction: number): string {
  let left = fraction;
  for (const [type, share] of ORDINARY_TYPES) {
    if (left < share) return type;
    left -= share;
  }
  return 'A';
}

/** Returns a function that draws a rank: each about as often as one over its number. */
function zipf(count: number, random: SeededRandom): () => number {
  const sums = new Float64Array(count);
  let sum = 0;
  for (let rank = 0; rank < count; rank++) sums[rank] = sum += 1 / (rank + 1);
  return () => {
    const wanted = random.fraction() * sum;
    let [low, high] = [0, count - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((sums[middle] ?? 0) < wanted) low = middle + 1;
      else high = middle;
    }
    return low;
  };
}
