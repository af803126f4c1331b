import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { guestCommand, guestFiles, NATIVE } from './guest-files.ts';
import { makeImage } from './image.ts';
import { runInVirtualMachine, type Step, type StepResult } from './virtual-machine.ts';

const HELP = `npm run lab                       the suites below on a Debian kernel in QEMU
npm run lab -- test/netns/x.test.ts ...   these files there
npm run lab -- --command 'uname -a'       a command of the guest's shell; its exit code is ours
  --arch <amd64>        arm64 and armhf are to come
  --timeout <seconds>   for all of it, 300 by default
  --verbose             shows what the guest prints as it comes`;

/** What runs by default: contracts on a kernel that has everything, and tunnels of that kernel. */
const SUITES = [
  'test/lab/virtual-machine/kernel-tunnels.ts',
  'test/netns/netlink-links.test.ts',
  'test/netns/netlink-ruleset.test.ts',
  'test/netns/netlink-conntrack.test.ts',
  'test/contract/wireguard-device-kernel.ts',
];

/** Programs that files of these names start as a process of their own. */
const COMPANIONS: Readonly<Record<string, readonly string[]>> = {
  'test/netns/netlink-ruleset.test.ts': ['test/netns/netlink-owner.ts'],
};

const IMAGES = 'dist/virtual-machine';

/** The command; returns its exit code. */
export async function lab(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      arch: { type: 'string', default: 'amd64' },
      command: { type: 'string' },
      timeout: { type: 'string', default: '300' },
      verbose: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  // The place for `--arch arm64|armhf`: these need programs out of Debian's packages instead of this machine's.
  if (values.arch !== 'amd64' || process.arch !== 'x64') {
    console.error(`only amd64 on amd64 so far, not ${values.arch} on ${process.arch}`);
    return 2;
  }
  const missing = ['dist/culvert.cjs', NATIVE].filter((file) => !existsSync(file));
  if (missing.length > 0) {
    console.error(`missing: ${missing.join(', ')}\nget it with: npm run build`);
    return 2;
  }
  const scripts = positionals.length > 0 ? positionals : SUITES;
  try {
    return await run(scripts, {
      command: values.command,
      timeoutSeconds: Number(values.timeout),
      isVerbose: values.verbose,
    });
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    return 2;
  }
}

interface Wishes {
  readonly command: string | undefined;
  readonly timeoutSeconds: number;
  readonly isVerbose: boolean;
}

async function run(scripts: readonly string[], wishes: Wishes): Promise<number> {
  const { command, timeoutSeconds, isVerbose } = wishes;
  const image = makeImage(IMAGES);
  const bundles =
    command === undefined ? scripts.flatMap((x) => [x, ...(COMPANIONS[x] ?? [])]) : [];
  const steps: readonly Step[] =
    command === undefined
      ? scripts.map((title) => ({ title, commands: guestCommand(title, NATIVE) }))
      : [{ title: command, commands: command }];
  const files = await guestFiles(bundles);
  const isShown = isVerbose || command !== undefined;
  const onLine = isShown ? (line: string) => console.log(line) : () => {};
  const result = await runInVirtualMachine(image, { files, steps, timeoutSeconds, onLine });
  if (result.failure !== undefined) console.error(result.failure);
  if (command !== undefined) return result.steps[0]?.code ?? 1;

  for (const step of isVerbose ? [] : result.steps.filter(hasFailed)) {
    console.log(`\n— ${step.step.title}\n${step.output.join('\n')}`);
  }
  console.log(`\n${image.release}, up after ${result.bootSeconds.toFixed(1)} s\n`);
  for (const row of table(result.steps)) console.log(row);
  return result.steps.some(hasFailed) ? 1 : 0;
}

function hasFailed(result: StepResult): boolean {
  return result.code !== 0 || countOf(result).failed > 0;
}

function table(results: readonly StepResult[]): readonly string[] {
  const header = ['', 'suite', 'passed', 'failed', 'skipped', 'seconds'];
  const rows = results.map((result) => {
    const { passed, failed, skipped } = countOf(result);
    const state = result.code === undefined ? 'lost' : hasFailed(result) ? 'FAIL' : 'ok';
    const numbers = [passed, failed, skipped, result.seconds.toFixed(1)].map(String);
    return [state, result.step.title, ...numbers];
  });
  const all = [header, ...rows];
  const widths = header.map((_, i) => Math.max(...all.map((row) => row[i]?.length ?? 0)));
  return all.map((row) =>
    row
      .map((cell, i) => (i < 2 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  '),
  );
}

/** The outermost results of TAP. */
function countOf({ output }: StepResult): { passed: number; failed: number; skipped: number } {
  const count = (pattern: RegExp) => output.filter((line) => pattern.test(line)).length;
  const skipped = count(/^(not )?ok .*# SKIP/i);
  return { passed: count(/^ok /) - count(/^ok .*# SKIP/i), failed: count(/^not ok /), skipped };
}
