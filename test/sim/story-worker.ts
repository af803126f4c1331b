import { parentPort, workerData } from 'node:worker_threads';
import { Arenas } from './arenas.ts';
import { play } from './story.ts';

const { first, last, step } = workerData as { first: number; last: number; step: number };
const arenas = new Arenas();
for (let seed = first; seed <= last; seed += step) {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port has none
  parentPort?.postMessage(play(seed, arenas));
}
