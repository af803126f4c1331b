/**
 * Compiles the C sources to one file. It links nothing (-nostdlib): what it calls is resolved from the
 * node binary that loads it, so one file per CPU serves glibc and musl.
 */
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import { arch as hostArch } from 'node:process';
import { promisify } from 'node:util';
import { include_dir as headers } from 'node-api-headers';
import { dist, root } from './paths.mjs';

/** The CPUs we build for, in Node's names, with the compiler and the Debian package that has it. */
const compilers = {
  x64: { command: 'x86_64-linux-gnu-gcc', debian: 'gcc-x86-64-linux-gnu' },
  arm64: { command: 'aarch64-linux-gnu-gcc', debian: 'gcc-aarch64-linux-gnu' },
  arm: { command: 'arm-linux-gnueabihf-gcc', debian: 'gcc-arm-linux-gnueabihf' },
};

export const architectures = Object.keys(compilers);

/**
 * Compiles the native file for a CPU (`x64`, `arm64` or `arm` with hard float; this machine's by
 * default) into `directory`. Returns its path.
 */
export async function buildNative(arch = hostArch, directory = `${dist}/native`) {
  const compiler = arch === hostArch ? { command: 'gcc', debian: 'gcc' } : compilers[arch];
  if (compiler === undefined) throw new Error(`no compiler is known for the CPU ${arch}`);
  const path = `${directory}/culvert-${arch}.node`;
  const unfinished = `${path}.${process.pid}`;
  await mkdir(directory, { recursive: true });
  try {
    await promisify(execFile)(compiler.command, [...flags, '-o', unfinished, ...sources]);
  } catch (error) {
    if (error.code !== 'ENOENT') throw new Error(error.stderr ?? error.message, { cause: error });
    throw new Error(
      `${compiler.command} is missing: apt-get install ${compiler.debian} (Debian) has it`,
      { cause: error },
    );
  }
  await rename(unfinished, path); // a process that has the old file mapped keeps it
  return path;
}

const folder = `${root}/plugins/platform-node/native`;
const sources = readdirSync(folder)
  .filter((name) => name.endsWith('.c'))
  .sort()
  .map((name) => `${folder}/${name}`);

const flags = [
  '-std=gnu11',
  '-Os',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-shared',
  '-fPIC',
  '-nostdlib',
  '-fvisibility=hidden',
  // Both would call into a C library by names that musl does not have.
  '-fno-stack-protector',
  '-U_FORTIFY_SOURCE',
  '-DNODE_GYP_MODULE_NAME=culvert',
  `-I${headers}`,
  // Equal sources give equal bytes, wherever they lie.
  `-ffile-prefix-map=${root}=.`,
  '-Wl,--build-id=none',
  '-Wl,-s',
];
