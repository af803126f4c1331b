import { execFile } from 'node:child_process';
import { failed, ok, type Outcome } from '../../core/sansio/outcome.ts';
import type { Millis } from '../../core/sansio/instant.ts';

/** A program and its parameters. */
export type Command = readonly [string, ...string[]];

/** A restart of dnsmasq under procd takes two seconds. */
const PATIENCE: Millis = 30_000;

/** Runs a program, not through a shell, and returns what it printed; or what it complained about. */
export function run([program, ...parameters]: Command): Promise<
  Outcome<string, 'absent' | 'failed'> & { readonly complaint: string }
> {
  return new Promise((resolve) => {
    execFile(program, parameters, { timeout: PATIENCE }, (error, stdout, stderr) => {
      if (error === null) resolve({ ...ok(stdout), complaint: '' });
      else {
        const complaint = stderr.trim() === '' ? error.message : stderr.trim();
        resolve({ ...failed(error.code === 'ENOENT' ? 'absent' : 'failed'), complaint });
      }
    });
  });
}
