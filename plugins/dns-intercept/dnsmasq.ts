import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { InterceptionFailure } from '../../core/plugin/dns-interception.ts';
import type { Log } from '../../core/sansio/log.ts';
import { run, type Command } from './run.ts';

/** Where dnsmasq takes its configuration. */
export interface DnsmasqPlace {
  /** The `conf-dir` of each instance; on OpenWrt they are in memory, so that nothing wears the flash. */
  readonly confDirs: readonly string[];
  /** Makes dnsmasq read them. */
  readonly restart: Command;
}

/**
 * Tells dnsmasq of our zones by a file of ours in its conf-dir, for which it must be restarted. A
 * `servers-file` would be read again on SIGHUP, but takes no `rebind-domain-ok` (dnsmasq 2.90 does not
 * start then), and OpenWrt's jail shows dnsmasq the file that was there when it started.
 */
export class Dnsmasq {
  readonly #find: () => Promise<DnsmasqPlace | undefined>;
  readonly #log: Log;

  constructor(find: () => Promise<DnsmasqPlace | undefined>, log: Log) {
    this.#find = find;
    this.#log = log;
  }

  /** Makes the file have this text, or removes it for none; dnsmasq is left alone where that is so. */
  async tell(text: string): Promise<InterceptionFailure | undefined> {
    const place = await this.#find();
    if (place === undefined) return text === '' ? undefined : NO_DNSMASQ;
    const before = place.confDirs.map((directory) => ({ directory, text: textIn(directory) }));
    const outdated = before.filter((one) => one.text !== text || isUnfinished(one.directory));
    if (outdated.length === 0) return undefined;

    const failure =
      (text === '' ? undefined : await check(place, text)) ??
      write(outdated.map(({ directory }) => ({ directory, text })));
    if (failure !== undefined) return failure;
    const restarted = await run(place.restart);
    if (restarted.ok) {
      finish(outdated);
      this.#log.debug('dnsmasq restarted', { instances: outdated.length });
      return undefined;
    }
    // Without us it may be able to.
    write(outdated);
    if ((await run(place.restart)).ok) finish(outdated);
    return { why: 'refused', detail: `${place.restart.join(' ')}: ${restarted.complaint}` };
  }
}

const NO_DNSMASQ: InterceptionFailure = {
  why: 'no-dnsmasq',
  detail: 'where dnsmasq takes its configuration is known on OpenWrt alone: use redirect',
};

const FILE = 'culvert.conf';
/** dnsmasq does not read what begins with a dot. */
const DRAFT = '.culvert.conf';
/** Is there from a change until dnsmasq was restarted: we may be killed in between. */
const UNFINISHED = '.culvert.unfinished';

interface Contents {
  readonly directory: string;
  readonly text: string;
}

/** With a line that it does not understand dnsmasq would not start, and the LAN had no DNS. */
async function check(
  { confDirs }: DnsmasqPlace,
  text: string,
): Promise<InterceptionFailure | undefined> {
  for (const directory of confDirs) {
    const draft = join(directory, DRAFT);
    const failure = attempt(() => {
      mkdirSync(directory, { recursive: true });
      writeFileSync(draft, text);
    });
    if (failure !== undefined) return failure;
    const checked = await run(['dnsmasq', '--test', `--conf-file=${draft}`]);
    rmSync(draft, { force: true });
    if (checked.ok) continue;
    if (checked.why === 'absent') {
      return { why: 'no-dnsmasq', detail: 'dnsmasq is not installed: install it, or use redirect' };
    }
    return { why: 'refused', detail: checked.complaint };
  }
  return undefined;
}

function write(wanted: readonly Contents[]): InterceptionFailure | undefined {
  return attempt(() => {
    for (const { directory, text } of wanted) {
      const file = join(directory, FILE);
      writeFileSync(join(directory, UNFINISHED), '');
      if (text === '') {
        rmSync(file, { force: true });
        continue;
      }
      writeFileSync(join(directory, DRAFT), text);
      renameSync(join(directory, DRAFT), file);
    }
  });
}

function finish(changed: readonly Contents[]): void {
  for (const { directory } of changed) rmSync(join(directory, UNFINISHED), { force: true });
}

function isUnfinished(directory: string): boolean {
  return existsSync(join(directory, UNFINISHED));
}

function attempt(work: () => void): InterceptionFailure | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const isPermission = code === 'EACCES' || code === 'EPERM' || code === 'EROFS';
    return { why: isPermission ? 'not-permitted' : 'refused', detail: message };
  }
}

/** What our file says; nothing where there is none. */
function textIn(directory: string): string {
  try {
    return readFileSync(join(directory, FILE), 'utf8');
  } catch {
    return '';
  }
}
