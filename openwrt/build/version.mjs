import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { root } from './paths.mjs';

/** The version in package.json, e.g. `0.1.0`. */
export const version = JSON.parse(readFileSync(`${root}/package.json`, 'utf8')).version;

/** The short git hash of the checkout, or `unknown` outside of git. */
export const commit = git('rev-parse', '--short=12', 'HEAD') ?? 'unknown';

/**
 * Seconds since 1970 that stand in everything we package, so that equal sources give equal bytes:
 * SOURCE_DATE_EPOCH (reproducible-builds.org), else the time of the commit, else the first of 1980.
 */
export const sourceDate = Number(
  process.env.SOURCE_DATE_EPOCH ?? git('log', '-1', '--format=%ct') ?? 315532800,
);

function git(...parameters) {
  try {
    const output = execFileSync('git', parameters, {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return output.trim();
  } catch {
    return undefined; // no git, or not a checkout
  }
}
