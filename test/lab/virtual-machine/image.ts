import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { pack } from './initramfs.ts';

/** What all virtual machines start from. */
export interface Image {
  /** As in `6.1.0-56-cloud-amd64`. */
  readonly release: string;
  /** Path of the kernel. */
  readonly kernel: string;
  /** Path of the initramfs that has modules and programs: a cpio archive to which another can be appended. */
  readonly initramfs: string;
  readonly isNew: boolean;
}

/**
 * The image of a virtual machine of this machine's own architecture: the newest cloud kernel of Debian, and
 * programs of this machine with their shared libraries. Nothing is installed. It is kept in `directory`,
 * under the versions of what went in, in place of the one before. Throws with what is missing and how to
 * get it.
 */
export function makeImage(directory: string): Image {
  const programs = findPrograms();
  const debian = newestKernel();
  const name = `${debian.name}_${fingerprint([debian.version, ...programs.map(stamp)])}`;
  const place = join(directory, name);
  const isNew = !existsSync(place);
  if (isNew) {
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory, { recursive: true });
    const unfinished = mkdtempSync(join(directory, 'unfinished-'));
    try {
      build(unfinished, debian.name, programs);
      renameSync(unfinished, place);
    } finally {
      rmSync(unfinished, { recursive: true, force: true });
    }
  }
  const [kernel, initramfs] = [join(place, 'kernel'), join(place, 'initramfs.cpio')];
  return { release: debian.name.replace('linux-image-', ''), kernel, initramfs, isNew };
}

/** A program of this machine, and what it is called in the guest. */
interface Program {
  readonly path: string;
  readonly name: string;
}

/** Programs for the guest, with the Debian package that has each. */
const GUEST_PROGRAMS = {
  ip: 'iproute2',
  tc: 'iproute2',
  ss: 'iproute2',
  nft: 'nftables',
  wg: 'wireguard-tools',
  conntrack: 'conntrack',
  iperf3: 'iperf3',
  ping: 'iputils-ping',
  unshare: 'util-linux',
  nsenter: 'util-linux',
  modprobe: 'kmod',
  env: 'coreutils', // that of busybox runs an applet before a program, as its shell does
  // As `sh`; that of busybox takes its own applets, `ip` among them, before any program in the path.
  dash: 'dash',
  busybox: 'busybox-static',
};

/** Programs that make the image or run it. */
const HOST_PROGRAMS = {
  'qemu-system-x86_64': 'qemu-system-x86',
  cpio: 'cpio',
  depmod: 'kmod',
  'dpkg-deb': 'dpkg',
  'apt-get': 'apt',
  ldd: 'libc-bin',
};

/** Modules of the kernel, and with them all that they depend on. */
// prettier-ignore
const MODULES = [
  'virtio_pci', 'virtio_console', 'wireguard', 'tun', 'veth', 'dummy', 'ifb', 'bridge',
  '8021q', 'bonding', 'sch_netem', 'sch_tbf', 'sch_fq', 'sch_fq_codel', 'sch_ingress',
  'cls_u32', 'cls_matchall', 'act_mirred',
];

/** Folders of modules that are taken whole: nf_tables loads its expressions as they are used. */
const MODULE_FOLDERS = [
  'kernel/net/netfilter/',
  'kernel/net/ipv4/netfilter/',
  'kernel/net/ipv6/netfilter/',
];

/** Tables of names that programs print by. */
const FILES = ['/etc/protocols', '/etc/services', '/etc/iproute2', '/usr/share/iproute2'];

function findPrograms(): readonly Program[] {
  const needed = Object.entries({ ...HOST_PROGRAMS, ...GUEST_PROGRAMS });
  const missing = needed.filter(([program]) => find(program) === undefined);
  if (missing.length > 0) {
    const packages = [...new Set(missing.map(([, debian]) => debian))].join(' ');
    const names = missing.map(([program]) => program).join(', ');
    throw new Error(
      `missing: ${names}\nget it with: apt-get install --no-install-recommends ${packages}`,
    );
  }
  const guest = Object.keys(GUEST_PROGRAMS).map((program) => ({
    path: find(program) ?? '',
    name: program === 'dash' ? 'sh' : program,
  }));
  return [{ path: realpathSync(process.execPath), name: 'node' }, ...guest];
}

function find(program: string): string | undefined {
  const folders = `${process.env['PATH']}:/usr/sbin:/sbin`.split(':');
  const path = folders.map((folder) => join(folder, program)).find((one) => existsSync(one));
  return path === undefined ? undefined : realpathSync(path);
}

/** Debian's name and version of the newest kernel for machines in a cloud, which starts fast. */
function newestKernel(): { readonly name: string; readonly version: string } {
  const metapackage = 'linux-image-cloud-amd64';
  const cache = (...args: string[]) => spawnSync('apt-cache', args, { encoding: 'utf8' }).stdout;
  const name = /Depends: (linux-image-\S+)/.exec(cache('depends', metapackage))?.[1];
  const version = name && /^Version: (.*)$/m.exec(cache('show', '--no-all-versions', name))?.[1];
  if (!name || !version) {
    throw new Error(`missing: the package ${metapackage}\nget it with: apt-get update (on Debian)`);
  }
  return { name, version };
}

/** Changes where the program does. */
function stamp({ path }: Program): string {
  const { size, mtimeMs } = statSync(path);
  return `${path} ${size} ${mtimeMs}`;
}

/** Of versions, and of how the image is made. */
function fingerprint(versions: readonly string[]): string {
  const hash = createHash('sha256');
  for (const file of ['image.ts', 'guest/init']) {
    hash.update(readFileSync(new URL(file, import.meta.url)));
  }
  return hash.update(versions.join('\n')).digest('hex').slice(0, 12);
}

function build(directory: string, debian: string, programs: readonly Program[]): void {
  const unpacked = join(directory, 'unpacked');
  const root = join(directory, 'root');
  const release = debian.replace('linux-image-', '');
  download(directory, debian, unpacked);
  for (const folder of ['bin', 'sbin', 'usr/bin', 'proc', 'sys', 'dev', 'tmp', 'run', 'root']) {
    mkdirSync(join(root, folder), { recursive: true });
  }
  for (const program of programs) copyProgram(program, root);
  addApplets(root);
  copyModules(unpacked, root, release);
  for (const file of FILES.filter(existsSync)) cpSync(file, root + file, { recursive: true });
  copyFileSync(new URL('guest/init', import.meta.url), join(root, 'init'));
  pack(root, join(directory, 'initramfs.cpio'));
  copyFileSync(join(unpacked, 'boot', `vmlinuz-${release}`), join(directory, 'kernel'));
  rmSync(unpacked, { recursive: true });
  rmSync(root, { recursive: true });
}

function download(directory: string, debian: string, into: string): void {
  const { status, stderr } = spawnSync('apt-get', ['-q', 'download', debian], {
    cwd: directory,
    encoding: 'utf8',
  });
  const file = readdirSync(directory).find((name) => name.endsWith('.deb'));
  if (status !== 0 || file === undefined) {
    throw new Error(`missing: the package ${debian}\n${stderr}get it with: apt-get update`);
  }
  execFileSync('dpkg-deb', ['-x', join(directory, file), into]);
  rmSync(join(directory, file));
}

/** With its shared libraries, at the same paths as here. */
function copyProgram({ path, name }: Program, root: string): void {
  copyFileSync(path, join(root, 'usr/bin', name));
  const listed = spawnSync('ldd', [path], { encoding: 'utf8' }).stdout; // fails for a static one
  for (const [, library = ''] of listed.matchAll(/(\/\S+) \(0x/g)) {
    mkdirSync(dirname(root + library), { recursive: true });
    if (!existsSync(root + library)) copyFileSync(library, root + library);
  }
}

/** What no program of its own is there for, busybox does. */
function addApplets(root: string): void {
  renameSync(join(root, 'usr/bin/busybox'), join(root, 'bin/busybox'));
  renameSync(join(root, 'usr/bin/sh'), join(root, 'bin/sh'));
  symlinkSync('/usr/bin/modprobe', join(root, 'sbin/modprobe')); // where the kernel looks
  const applets = execFileSync(join(root, 'bin/busybox'), ['--list'], { encoding: 'utf8' });
  for (const applet of applets.trim().split('\n')) {
    const isThere = ['bin', 'usr/bin'].some((folder) => existsSync(join(root, folder, applet)));
    if (!isThere) symlinkSync('busybox', join(root, 'bin', applet));
  }
}

function copyModules(unpacked: string, root: string, release: string): void {
  execFileSync('depmod', ['-b', unpacked, release]);
  const from = join(unpacked, 'lib/modules', release);
  const to = join(root, 'lib/modules', release);
  const dependencies = new Map<string, readonly string[]>();
  for (const line of readFileSync(join(from, 'modules.dep'), 'utf8').split('\n')) {
    const [file = '', others = ''] = line.split(':');
    if (file !== '') dependencies.set(file, others.split(' ').filter(Boolean));
  }
  const nameOf = (file: string) => (file.split('/').pop() ?? '').replace(/\.ko.*$/, '');
  const wanted = [...dependencies.keys()].filter(
    (file) =>
      MODULES.includes(nameOf(file)) || MODULE_FOLDERS.some((folder) => file.startsWith(folder)),
  );
  for (const file of new Set(wanted.flatMap((one) => [one, ...(dependencies.get(one) ?? [])]))) {
    mkdirSync(dirname(join(to, file)), { recursive: true });
    copyFileSync(join(from, file), join(to, file));
  }
  for (const name of ['modules.builtin', 'modules.builtin.modinfo', 'modules.order']) {
    if (existsSync(join(from, name))) copyFileSync(join(from, name), join(to, name));
  }
  execFileSync('depmod', ['-b', root, release]);
}
