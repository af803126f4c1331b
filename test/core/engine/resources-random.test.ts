import t from 'tap';
import { Arenas } from '../../sim/arenas.ts';
import { ResourceStory } from '../../sim/resource-story.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const SEEDS = Number(process.env['SEEDS'] ?? 200);
const STEPS = 12;

await t.test(
  `whatever happens, nothing goes where it may not, and all heals (SEED=${SEED})`,
  (t) => {
    const arenas = new Arenas();
    for (let seed = SEED; seed < SEED + SEEDS; seed++) {
      const story = new ResourceStory(seed, arenas);
      try {
        story.run(STEPS);
      } catch (error) {
        t.comment(`SEED=${seed} SEEDS=1`);
        throw error;
      }
      story.end();
    }
    t.pass(`${SEEDS} stories`);
    t.end();
  },
);
