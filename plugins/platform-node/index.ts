export { createNodeClock, type TimeSources } from './clock.ts';
export { errnoName } from './errno.ts';
export { createFiles, openFiles } from './files.ts';
export { createNative, loadNative } from './native.ts';
export { nodeRandom } from './random.ts';
