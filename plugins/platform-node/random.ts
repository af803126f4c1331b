import { randomFillSync } from 'node:crypto';
import type { Random } from '../../core/sansio/random.ts';

/** The kernel's randomness. */
export const nodeRandom: Random = {
  fill(out) {
    randomFillSync(out);
  },
};
