import { readFileSync, statSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import type { Bench } from './bench-definition.ts';
import { less } from './samples.ts';

const plain = less('bytes', 'KB');
const gzipped = less('bytes, gzipped', 'KB');

const FILES = {
  'culvert.cjs': 'dist/culvert.cjs',
  'culvert-fleet.cjs': 'dist/culvert-fleet.cjs',
  [`culvert-${process.arch}.node`]: `dist/native/culvert-${process.arch}.node`,
};

export const size: Bench = {
  name: 'size',
  title: 'What is shipped',
  baseline: 'culvert.cjs',
  metrics: [plain, gzipped],
  goals: (samples) => [
    {
      what: 'the bundle of the router (KB)',
      measured: samples.median('culvert.cjs', plain),
      wanted: { atMost: 700 },
    },
  ],
  run({ samples }) {
    for (const [name, path] of Object.entries(FILES)) {
      samples.add(name, plain, statSync(path).size / 1024);
      samples.add(name, gzipped, gzipSync(readFileSync(path), { level: 9 }).length / 1024);
    }
    return Promise.resolve();
  },
};
