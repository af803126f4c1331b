import { lstatSync, readlinkSync, statSync, watch, type FSWatcher } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import type { Millis } from '../../core/sansio/instant.ts';
import { filesIn, unlessMissing } from './text-file.ts';

/** From the first sign of a change to the call: files are written in several steps. */
const DEBOUNCE: Millis = 200;
const POLL_INTERVAL: Millis = 30_000;
/** Symbolic links on the way to a file; the kernel follows 40. */
const MOST_LINKS = 40;

export interface MonitorOptions {
  readonly debounce?: Millis;
  readonly pollInterval?: Millis;
  readonly watch?: typeof watch;
}

/**
 * Calls `onChange` after one of the files, or one in a directory among them, changed, came or went.
 *
 * Files are replaced by rename, and a watch would go with the old one. So the directories on the way are
 * watched for the names that lead on, through symbolic links, from the root down: what is missing is seen
 * when it comes. After a change the way may be another: it is watched anew, and told only then, so that
 * whoever reads when told misses nothing. Where something cannot be watched (the kernel has a limit), the
 * files are looked at every 30 s besides. None of this keeps the process alive.
 */
export class PathMonitor {
  readonly #paths: readonly string[];
  readonly #onChange: () => void;
  readonly #debounceFor: Millis;
  readonly #pollInterval: Millis;
  readonly #watch: typeof watch;
  readonly #watched = new Map<string, Watched>();
  #debounce: NodeJS.Timeout | undefined;
  #poll: NodeJS.Timeout | undefined;

  constructor(paths: readonly string[], onChange: () => void, options: MonitorOptions = {}) {
    this.#paths = paths.map((path) => resolve(path));
    this.#onChange = onChange;
    this.#debounceFor = options.debounce ?? DEBOUNCE;
    this.#pollInterval = options.pollInterval ?? POLL_INTERVAL;
    this.#watch = options.watch ?? watch;
    this.#watchAnew();
  }

  close(): void {
    clearTimeout(this.#debounce);
    clearInterval(this.#poll);
    this.#debounce = undefined;
    this.#poll = undefined;
    for (const { watcher } of this.#watched.values()) watcher.close();
    this.#watched.clear();
  }

  #watchAnew(): void {
    this.close();
    for (const path of this.#paths) {
      try {
        this.#follow(path, MOST_LINKS);
      } catch {
        this.#startPolling();
      }
    }
  }

  #follow(path: string, links: number): void {
    let directory = '/';
    const names = path.split('/').filter((name) => name !== '');
    for (const [i, name] of names.entries()) {
      if (!this.#watchFor(name, directory)) return;
      const next = join(directory, name);
      const target = linkTarget(next);
      if (target !== undefined) {
        const rest = names.slice(i + 1);
        if (links > 0) this.#follow(resolve(directory, target, ...rest), links - 1);
        return;
      }
      directory = next;
    }
    if (isDirectory(directory)) this.#watchFor(EVERY_NAME, directory);
  }

  /** Returns whether the directory is there. Throws where it cannot be watched. */
  #watchFor(name: string, directory: string): boolean {
    const watched = this.#watched.get(directory);
    if (watched !== undefined) {
      watched.names.add(name);
      return true;
    }
    // It tells of its own end by its own name.
    const names = new Set([name, basename(directory)]);
    const watcher = unlessMissing(() =>
      this.#watch(directory, { persistent: false }, (_, changed) => {
        if (changed === null || names.has(changed) || names.has(EVERY_NAME)) this.#onSign();
      }),
    );
    if (watcher === undefined) return false;
    watcher.on('error', () => this.#startPolling());
    this.#watched.set(directory, { watcher, names });
    return true;
  }

  #onSign(): void {
    this.#debounce ??= setTimeout(() => {
      this.#watchAnew();
      this.#onChange();
    }, this.#debounceFor).unref();
  }

  #startPolling(): void {
    if (this.#poll !== undefined) return;
    const seen = this.#state();
    this.#poll = setInterval(() => {
      if (this.#state() !== seen) this.#onSign();
    }, this.#pollInterval).unref();
  }

  /** Another text after each change. */
  #state(): string {
    return this.#paths.flatMap((path) => [path, ...filesOf(path)].map(stateOf)).join(' ');
  }
}

interface Watched {
  readonly watcher: FSWatcher;
  readonly names: Set<string>;
}

/** No file has this name. */
const EVERY_NAME = '/';

function linkTarget(path: string): string | undefined {
  const isLink = lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
  return isLink ? unlessMissing(() => readlinkSync(path)) : undefined;
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function filesOf(path: string): readonly string[] {
  try {
    return isDirectory(path) ? filesIn(path) : [];
  } catch {
    return [];
  }
}

function stateOf(path: string): string {
  try {
    const { ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
    return [ino, size, mtimeNs, ctimeNs].join(' ');
  } catch {
    return 'unreadable';
  }
}
