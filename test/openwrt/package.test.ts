import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import t, { type Test } from 'tap';

const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
const packed = makePackage(t);

await t.test('equal sources give equal bytes', async (t) => {
  const again = makePackage(t);
  t.ok(readFileSync(again).equals(readFileSync(packed)));
  t.same([...readFileSync(packed).subarray(0, 10)], [31, 139, 8, 0, 0, 0, 0, 0, 2, 255]);
});

await t.test('it has the members of an opkg package, in their order', async (t) => {
  t.match(packed, new RegExp(`/culvert_${version}-r1_all\\.ipk$`));
  t.same(list(packed), [
    '-rw-r--r-- 0/0 ./debian-binary',
    '-rw-r--r-- 0/0 ./data.tar.gz',
    '-rw-r--r-- 0/0 ./control.tar.gz',
  ]);
  const folder = unpack(t, packed);
  t.equal(readFileSync(`${folder}/debian-binary`, 'utf8'), '2.0\n');
});

await t.test('the files lie where OpenWrt wants them, with its modes, owned by root', async (t) => {
  const folder = unpack(t, packed);
  t.same(list(`${folder}/data.tar.gz`), [
    'drwxr-xr-x 0/0 ./',
    'drwxr-xr-x 0/0 ./etc/',
    'drwxr-xr-x 0/0 ./etc/config/',
    '-rw------- 0/0 ./etc/config/culvert',
    'drwxr-xr-x 0/0 ./etc/init.d/',
    '-rwxr-xr-x 0/0 ./etc/init.d/culvert',
    'drwxr-xr-x 0/0 ./etc/uci-defaults/',
    '-rwxr-xr-x 0/0 ./etc/uci-defaults/60-culvert',
    'drwxr-xr-x 0/0 ./lib/',
    'drwxr-xr-x 0/0 ./lib/upgrade/',
    'drwxr-xr-x 0/0 ./lib/upgrade/keep.d/',
    '-rw-r--r-- 0/0 ./lib/upgrade/keep.d/culvert',
    'drwxr-xr-x 0/0 ./usr/',
    'drwxr-xr-x 0/0 ./usr/bin/',
    '-rwxr-xr-x 0/0 ./usr/bin/culvert',
    'drwxr-xr-x 0/0 ./usr/lib/',
    'drwxr-xr-x 0/0 ./usr/lib/culvert/',
    '-rwxr-xr-x 0/0 ./usr/lib/culvert/culvert.cjs',
    'drwxr-xr-x 0/0 ./usr/lib/culvert/native/',
    '-rw-r--r-- 0/0 ./usr/lib/culvert/native/culvert-arm.node',
    '-rw-r--r-- 0/0 ./usr/lib/culvert/native/culvert-arm64.node',
    '-rw-r--r-- 0/0 ./usr/lib/culvert/native/culvert-x64.node',
  ]);
  const tree = unpack(t, `${folder}/data.tar.gz`);
  t.equal(
    readFileSync(`${tree}/etc/config/culvert`, 'utf8'),
    readFileSync('rootfs/etc/config/culvert', 'utf8'),
  );
});

await t.test('control, conffiles and scripts say what opkg needs', async (t) => {
  const folder = unpack(t, `${unpack(t, packed)}/control.tar.gz`);
  t.same(readdirSync(folder).sort(), ['conffiles', 'control', 'postinst', 'prerm']);
  const control = readFileSync(`${folder}/control`, 'utf8');
  for (const field of [
    /^Package: culvert$/m,
    new RegExp(`^Version: ${version}-r1$`, 'm'),
    /^Architecture: all$/m,
    /^Depends: ca-bundle, kmod-tun, kmod-nft-nat, kmod-nf-conntrack-netlink$/m,
    /^License: Apache-2\.0$/m,
    /^Installed-Size: \d{5,}$/m,
    /^Description: \S/m,
  ]) {
    t.match(control, field);
  }
  t.equal(readFileSync(`${folder}/conffiles`, 'utf8'), '/etc/config/culvert\n');
  for (const script of ['postinst', 'prerm']) {
    const text = readFileSync(`${folder}/${script}`, 'utf8');
    t.match(text, `default_${script} "$0" "$@"`);
    execFileSync('busybox', ['ash', '-n', `${folder}/${script}`]);
  }
  const upgrade = '[ "$1" = upgrade ] && export PKG_UPGRADE=1\n';
  t.match(readFileSync(`${folder}/prerm`, 'utf8'), `${upgrade}default_prerm`);
});

await t.test('the unpacked command runs', async (t) => {
  const tree = unpack(t, `${unpack(t, packed)}/data.tar.gz`);
  t.match(
    execFileSync(`${tree}/usr/lib/culvert/culvert.cjs`, ['version'], { encoding: 'utf8' }),
    version,
  );
});

function makePackage(t: Test): string {
  const folder = t.testdir();
  const output = execFileSync(process.execPath, ['openwrt/build/package.mjs', folder], {
    encoding: 'utf8',
  });
  return output.split(' ')[0] ?? '';
}

function unpack(t: Test, archive: string): string {
  const folder = `${t.testdirName}/${archive.split('/').at(-1)}.d`;
  mkdirSync(folder, { recursive: true });
  execFileSync('tar', ['-xzf', archive, '-C', folder]);
  return folder;
}

/** Mode, owner and path of each member, in their order. */
function list(archive: string): readonly string[] {
  return execFileSync('tar', ['-tvzf', archive, '--numeric-owner'], { encoding: 'utf8' })
    .trim()
    .split('\n')
    .map((line) => line.split(/ +/))
    .map(([mode, owner, , , , path]) => `${mode} ${owner} ${path}`);
}
