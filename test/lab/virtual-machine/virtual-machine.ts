import { spawn, type ChildProcess } from 'node:child_process';
import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Image } from './image.ts';
import { pack } from './initramfs.ts';

/** Commands for the shell of the guest, whose working directory is `/culvert`. */
export interface Step {
  readonly title: string;
  readonly commands: string;
}

export interface StepResult {
  readonly step: Step;
  /** The exit code; `undefined` when the machine ended or the time was over before it. */
  readonly code: number | undefined;
  /** Lines of both outputs. */
  readonly output: readonly string[];
  readonly seconds: number;
}

export interface RunOptions {
  /** Path under `/culvert` in the guest, and what is in the file. */
  readonly files: ReadonlyMap<string, Uint8Array | string>;
  readonly steps: readonly Step[];
  readonly timeoutSeconds: number;
  /** Of each line of output as it comes. */
  readonly onLine?: (line: string) => void;
}

export interface RunResult {
  readonly steps: readonly StepResult[];
  /** From the start of QEMU to the first step. */
  readonly bootSeconds: number;
  /** Why the run ended before its last step. */
  readonly failure: string | undefined;
}

/**
 * Starts a virtual machine, runs the steps one after the other and takes it down. It has no network but its
 * own. Software emulation: whether KVM works shows only when it fails. QEMU and its files are gone when this
 * returns, and when this process ends; if it is killed, the guest switches itself off after the time limit.
 */
export async function runInVirtualMachine(image: Image, options: RunOptions): Promise<RunResult> {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-vm-'));
  const console = join(directory, 'console.log');
  let qemu: ChildProcess | undefined;
  const clean = (): void => {
    qemu?.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  };
  const onSignal = (signal: NodeJS.Signals): void => {
    clean();
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  };
  process.on('exit', clean);
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    const initramfs = makeInitramfs(image, directory, options);
    qemu = spawn('qemu-system-x86_64', qemuArguments(image, initramfs, console), {
      // An input that ends would close the port, and writing to it would block.
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    return await follow(qemu, console, options);
  } finally {
    clean();
    process.off('exit', clean);
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** The image and, appended, what this run brings. */
function makeInitramfs(image: Image, directory: string, options: RunOptions): string {
  const root = join(directory, 'root');
  const put = (path: string, content: Uint8Array | string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  };
  for (const [path, content] of options.files) put(join('culvert', path), content);
  mkdirSync(join(root, 'culvert'), { recursive: true });
  put('limit', `limit=${options.timeoutSeconds + 10}\n`);
  options.steps.forEach(({ commands }, i) => put(stepPath(i), `${commands}\n`));
  const own = join(directory, 'own.cpio');
  const initramfs = join(directory, 'initramfs.cpio');
  pack(root, own);
  copyFileSync(image.initramfs, initramfs);
  appendFileSync(initramfs, readFileSync(own));
  return initramfs;
}

function stepPath(index: number): string {
  return `steps/${String(index).padStart(3, '0')}`;
}

/** 512 MB, as the initramfs is in memory twice while it is unpacked. */
function qemuArguments(image: Image, initramfs: string, console: string): readonly string[] {
  // prettier-ignore
  return [
    '-accel', 'tcg,thread=multi', '-cpu', 'max', '-m', '512', '-smp', '2',
    '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
    '-kernel', image.kernel, '-initrd', initramfs,
    '-append', 'console=ttyS0 quiet panic=-1 mitigations=off',
    // What the kernel says stays apart from what the steps print.
    '-serial', `file:${console}`,
    '-device', 'virtio-serial-pci', '-chardev', 'stdio,id=output,signal=off',
    '-device', 'virtserialport,chardev=output,nr=1',
    '-object', 'rng-random,id=random,filename=/dev/urandom',
    '-device', 'virtio-rng-pci,rng=random',
  ];
}

/** Reads what the guest says until QEMU has ended. */
async function follow(
  qemu: ChildProcess,
  console: string,
  { steps, timeoutSeconds, onLine }: RunOptions,
): Promise<RunResult> {
  const started = performance.now();
  let bootSeconds = 0;
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    qemu.kill('SIGKILL');
  }, timeoutSeconds * 1000);
  const results = steps.map((step) => ({
    step,
    code: undefined as number | undefined,
    output: [] as string[],
    seconds: 0,
  }));
  let complaint = '';
  qemu.stderr?.on('data', (chunk) => (complaint += String(chunk)));
  let current: (typeof results)[number] | undefined;
  let began = 0;
  if (qemu.stdout !== null) {
    createInterface({ input: qemu.stdout }).on('line', (line) => {
      const [, kind, index, ...rest] = MARK.exec(line) ?? [];
      if (kind === 'begin') {
        if (bootSeconds === 0) bootSeconds = (performance.now() - started) / 1000;
        current = results[Number(index)];
        began = Number(rest[0]);
      } else if (kind === 'end' && current !== undefined) {
        current.code = Number(rest[0]);
        current.seconds = Number(rest[1]) - began;
        if (current.output.at(-1) === '') current.output.pop(); // was put before the mark
        current = undefined;
      } else {
        current?.output.push(line);
        onLine?.(line);
      }
    });
  }
  await new Promise<void>((resolve) => {
    qemu.on('close', () => resolve());
    qemu.on('error', (error) => {
      complaint += error.message;
      resolve();
    });
  });
  clearTimeout(timer);
  const isComplete = results.every(({ code }) => code !== undefined);
  const why = isLate ? `not done within ${timeoutSeconds} s` : 'the machine ended early';
  const failure = isComplete ? undefined : `${why}\n${complaint}${lastLines(console)}`;
  return { steps: results, bootSeconds, failure };
}

/** `begin <step> <uptime>` and `end <step> <code> <uptime>` of `guest/init`. */
// eslint-disable-next-line no-control-regex
const MARK = /^\x1e(begin|end) (\d+) (\S+)(?: (\S+))?$/;

function lastLines(file: string): string {
  try {
    return readFileSync(file, 'utf8').split('\n').slice(-30).join('\n');
  } catch {
    return ''; // QEMU did not get that far
  }
}
