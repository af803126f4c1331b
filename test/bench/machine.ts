import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { commit, version } from '../../openwrt/version.ts';

/** What the numbers depend on; nothing that names the machine. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGb: number;
  readonly kernel: string;
  readonly system: string;
  readonly node: string;
  readonly culvert: string;
}

export function describeMachine(): Machine {
  const [cpu] = cpus();
  const [, system = 'unknown'] =
    /^PRETTY_NAME="(.*)"$/m.exec(readFileSync('/etc/os-release', 'utf8')) ?? [];
  return {
    cpu: cpu?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGb: Math.round(totalmem() / 2 ** 30),
    // The numbers: what distributors append may name who built it for whom.
    kernel: /^[\d.]+/.exec(release())?.[0] ?? 'unknown',
    system,
    node: process.version,
    culvert: `${version} (${commit})`,
  };
}
