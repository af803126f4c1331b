import { readFileSync } from 'node:fs';

/** Seconds of CPU that the process has used in user and kernel mode, all threads (proc(5)). */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name in parentheses may hold blanks; what follows begins with field 3.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

export interface MemoryUsage {
  readonly residentMb: number;
  /** What would come free if the process ended: without pages of files that others map too. */
  readonly privateMb: number;
}

export function memoryUsage(pid: number): MemoryUsage {
  const status = kilobytes(readFileSync(`/proc/${pid}/status`, 'utf8'));
  const maps = kilobytes(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));
  return {
    residentMb: status('VmRSS') / 1024,
    privateMb: (maps('Private_Clean') + maps('Private_Dirty')) / 1024,
  };
}

/** USER_HZ, the same on every Linux that we run on. */
const TICKS_PER_SECOND = 100;

function kilobytes(text: string): (name: string) => number {
  return (name) => {
    const [, value] = new RegExp(`^${name}:\\s*(\\d+) kB`, 'm').exec(text) ?? [];
    if (value === undefined) throw new Error(`the kernel does not tell ${name}`);
    return Number(value);
  };
}
