#!/usr/bin/env node
/**
 * `npm run package`: the package for opkg (OpenWrt up to 24.10), as dist/culvert_<version>_all.ipk.
 *
 * One package serves every CPU. It holds the native file for each of them: a file depends on the CPU
 * family alone, OpenWrt tells some twenty kinds of arm apart by name, and opkg refuses a package for
 * any name but its own. Together they are smaller than the bundle.
 *
 *   npm run package -- <folder>     writes it there instead of dist
 */
import { mkdir, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { argv } from 'node:process';
import { buildAssembly } from './assembly.mjs';
import { bundle } from './bundle.mjs';
import { command } from './command.mjs';
import { ipk } from './ipk.mjs';
import { architectures, buildNative } from './native.mjs';
import { dist, root } from './paths.mjs';
import { sourceDate, version } from './version.mjs';

/** Counts the packages of one version of the sources. */
const RELEASE = 1;

await command(async () => {
  const folder = argv[2] ?? dist;
  const files = [...(await rootFiles()), ...(await builtFiles(`${folder}/package`))];
  const path = `${folder}/culvert_${version}-r${RELEASE}_all.ipk`;
  await writeFile(
    path,
    ipk({
      control: {
        Package: 'culvert',
        Version: `${version}-r${RELEASE}`,
        // Node.js is not named: OpenWrt 25.12 has no such package, and /usr/bin/culvert finds others.
        Depends: 'ca-bundle, kmod-tun, kmod-nft-nat, kmod-nf-conntrack-netlink',
        Source: 'culvert',
        SourceName: 'culvert',
        License: 'Apache-2.0',
        Section: 'net',
        SourceDateEpoch: sourceDate,
        Architecture: 'all',
        'Installed-Size': files.reduce((total, { contents }) => total + contents.length, 0),
        Description: JSON.parse(await readFile(`${root}/package.json`, 'utf8')).description,
      },
      conffiles: ['/etc/config/culvert'],
      scripts: {
        postinst: hook('default_postinst'),
        // The service then says to its peers that it will be back.
        prerm: hook('default_prerm', '[ "$1" = upgrade ] && export PKG_UPGRADE=1\n'),
      },
      files,
      mtime: sourceDate,
    }),
  );
  console.log(`${path}  ${(await stat(path)).size} bytes`);
});

/** What lies in rootfs/, as it lies there. What may come to hold secrets is root's alone. */
async function rootFiles() {
  const entries = await readdir(`${root}/rootfs`, { recursive: true, withFileTypes: true });
  return Promise.all(
    entries
      .filter((entry) => entry.isFile())
      .map(async (entry) => {
        const source = `${entry.parentPath ?? entry.path}/${entry.name}`; // path: Node.js < 20.12
        const path = source.slice(`${root}/rootfs/`.length);
        const isExecutable = ((await stat(source)).mode & 0o100) !== 0;
        const plain = path.startsWith('etc/config/') ? 0o600 : 0o644;
        return { path, mode: isExecutable ? 0o755 : plain, contents: await readFile(source) };
      }),
  );
}

async function builtFiles(directory) {
  await mkdir(directory, { recursive: true });
  await buildAssembly();
  const built = await bundle('router', { directory });
  const files = [{ path: 'culvert.cjs', mode: 0o755, contents: await readFile(built.path) }];
  for (const arch of architectures) {
    const contents = await readFile(await buildNative(arch, `${directory}/native`));
    files.push({ path: `native/culvert-${arch}.node`, mode: 0o644, contents });
  }
  return files.map((file) => ({ ...file, path: `usr/lib/culvert/${file.path}` }));
}

/** The stub that every OpenWrt package has: base-files does the work. */
function hook(name, first = '') {
  return `#!/bin/sh
[ "\${IPKG_NO_SCRIPT}" = "1" ] && exit 0
[ -s "\${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0
. "\${IPKG_INSTROOT}/lib/functions.sh"
${first}${name} "$0" "$@"
`;
}
