import type { Millis } from '../sansio/instant.ts';
import { randomFraction, type Random } from '../sansio/random.ts';

/**
 * Chooses one of the relays that answer quickly, each of them with equal chance, so that devices that
 * measure much the same spread over them. Relays that were not measured yet are out; `undefined` where
 * none was.
 *
 * Of one or two, those are quick that need at most 1.5 times as long as the quickest. Of more, those up to
 * three median absolute deviations above the median, which leaves out the far ones however many
 * there are nearby; where all are alike, differences of a few milliseconds do not count.
 */
export function chooseRelay<Relay extends { readonly rtt: Millis | undefined }>(
  relays: readonly Relay[],
  random: Random,
): Relay | undefined {
  const measured = relays.filter(({ rtt }) => rtt !== undefined);
  const limit = slowest(measured.map(({ rtt }) => rtt ?? 0));
  const accepted = measured.filter(({ rtt = 0 }) => rtt <= limit);
  return accepted[Math.floor(randomFraction(random) * accepted.length)];
}

/** Relative to the quickest, of at most FEW. */
const TOLERANCE = 1.5;
const FEW = 2;
const DEVIATIONS = 3;
const LEAST_DEVIATION: Millis = 2;

function slowest(rtts: readonly Millis[]): Millis {
  if (rtts.length <= FEW) return TOLERANCE * Math.min(...rtts);
  const middle = median(rtts);
  const deviation = median(rtts.map((rtt) => Math.abs(rtt - middle)));
  return middle + DEVIATIONS * Math.max(deviation, LEAST_DEVIATION);
}

/** Of at least one; the mean of the two in the middle of an even number. */
function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const [low, high] = [sorted[Math.ceil(middle) - 1] ?? 0, sorted[Math.floor(middle)] ?? 0];
  return (low + high) / 2;
}
