import { existsSync } from 'node:fs';
import { native, type Native } from '../../core/plugin/native.ts';
import type { PluginDefinition, Skip } from '../../core/plugin/plugin.ts';
import { isElfCutOff } from './elf.ts';

/** Returns a plugin that offers the native file at `path`. */
export function createNative(options: { readonly path: string }): PluginDefinition<Native> {
  return {
    name: 'platform-native',
    provides: native,
    needs: [],
    create() {
      const loaded = loadNative(options.path);
      return 'skip' in loaded ? loaded : { api: loaded, stop: () => undefined };
    },
  };
}

/** Loads the native file, or says why this machine cannot have it. */
export function loadNative(path: string): Native | Skip {
  if (!existsSync(path)) return { skip: `the native file ${path} is missing` };
  if (isElfCutOff(path)) return { skip: `the native file ${path} is cut off: install it again` };
  const module: { exports: object } = { exports: {} };
  try {
    process.dlopen(module, path);
  } catch (error) {
    const { arch, version } = process;
    const why = error instanceof Error ? error.message : String(error);
    return {
      skip: `the native file ${path} does not load into node ${version} on ${arch}: ${why}`,
    };
  }
  const missing = Object.keys(CALLS).find((name) => !(name in module.exports));
  if (missing !== undefined) {
    return { skip: `the native file ${path} is of another version: it lacks '${missing}'` };
  }
  return module.exports as Native;
}

/** The compiler keeps this list complete. */
const CALLS: Record<keyof Native, true> = {
  socket: true,
  bind: true,
  getsockname: true,
  setOption: true,
  setOptionBytes: true,
  getOption: true,
  open: true,
  ioctl: true,
  close: true,
  send: true,
  receive: true,
  readBatch: true,
  writeBatch: true,
  receiveBatch: true,
  sendBatch: true,
  aeadSeal: true,
  aeadOpen: true,
  watch: true,
  unwatch: true,
};
