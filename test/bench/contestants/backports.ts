import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A wireguard-go program and the upstream version it is of, such as `0.0.20231211`. */
export interface WireguardGoProgram {
  readonly version: string;
  readonly program: string;
}

const PACKAGE = 'wireguard-go';
/** Of the build directory: a program that was fetched once stays until that is removed. */
const CACHE = 'dist/bench/backports';

/** Returns the wireguard-go that Debian installed. */
export function installedWireguardGo(): WireguardGoProgram {
  const query = ['--show', '--showformat=${Version}', PACKAGE];
  const version = execFileSync('dpkg-query', query, { encoding: 'utf8' });
  return { version: upstreamOf(version), program: PACKAGE };
}

/**
 * Fetches the wireguard-go of this release's backports with apt-get and unpacks it beside the installed
 * one. The mirror is that of the machine's own sources; nothing is installed and no list of apt changes.
 * Throws where it cannot be had.
 */
export function backportedWireguardGo(): WireguardGoProgram {
  return cached() ?? fetch();
}

function cached(): WireguardGoProgram | undefined {
  const [version] = existsSync(CACHE) ? readdirSync(CACHE) : [];
  return version === undefined ? undefined : programOf(version);
}

function programOf(version: string): WireguardGoProgram | undefined {
  const program = join(process.cwd(), CACHE, version, 'usr/bin/wireguard-go');
  return existsSync(program) ? { version, program } : undefined;
}

function fetch(): WireguardGoProgram {
  const { codename, mirror } = debian();
  const directory = mkdtempSync(join(tmpdir(), 'culvert-backports-'));
  try {
    mkdirSync(join(directory, 'lists/partial'), { recursive: true });
    mkdirSync(join(directory, 'archives/partial'), { recursive: true });
    const source = `deb ${mirror} ${codename}-backports main\n`;
    writeFileSync(join(directory, 'sources.list'), source);
    const options = [
      `Dir::Etc::sourcelist=${directory}/sources.list`,
      'Dir::Etc::sourceparts=-',
      `Dir::State::lists=${directory}/lists`,
      `Dir::Cache=${directory}`,
      // Otherwise a mirror that does not answer is a warning.
      'APT::Update::Error-Mode=any',
      // The folder is ours alone, which the user of apt's sandbox cannot enter.
      'APT::Sandbox::User=root',
    ].flatMap((option) => ['-o', option]);
    run(directory, 'apt-get', ...options, '-q', 'update');
    run(directory, 'apt-get', ...options, '-q', 'download', PACKAGE);
    const file = readdirSync(directory).find((name) => name.endsWith('.deb'));
    if (file === undefined) throw new Error('apt-get downloaded nothing');
    const path = join(directory, file);
    const version = upstreamOf(run(directory, 'dpkg-deb', '--field', path, 'Version').trim());
    const unpacked = join(process.cwd(), CACHE, version);
    mkdirSync(unpacked, { recursive: true });
    run(directory, 'dpkg-deb', '--extract', path, unpacked);
    const program = programOf(version);
    if (program === undefined) throw new Error(`${file} holds no program`);
    return program;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The code name of this Debian, and the mirror that it installs from. */
function debian(): { readonly codename: string; readonly mirror: string } {
  const [, codename] =
    /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8')) ?? [];
  if (codename === undefined) throw new Error('this Debian has no code name, so no backports');
  // What apt itself makes of its sources, in both of their formats.
  const format = '$(SITE) $(CODENAME) $(COMPONENT) $(REPO_URI)';
  const targets = execFileSync(
    'apt-get',
    ['indextargets', '--format', format, 'Created-By: Packages'],
    {
      encoding: 'utf8',
    },
  );
  for (const line of targets.split('\n')) {
    const [, suite, component, mirror] = line.split(' ');
    if (suite === codename && component === 'main' && mirror !== undefined) {
      return { codename, mirror };
    }
  }
  throw new Error(`no source of apt names ${codename} main, so its mirror is not known`);
}

/** `1:0.0.20231211-1~bpo12+1` → `0.0.20231211` */
function upstreamOf(version: string): string {
  return version.replace(/^\d+:/, '').replace(/-[^-]*$/, '');
}

function run(directory: string, command: string, ...parameters: readonly string[]): string {
  return execFileSync(command, parameters, {
    cwd: directory,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 120_000,
  });
}
