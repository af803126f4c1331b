import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { arch } from 'node:process';

/**
 * The Debian packages that building and testing need: what shows that it is there already (a command,
 * or a file), and what it is for.
 */
const needed = [
  { debian: 'iproute2', proof: 'ip', use: 'network namespaces' },
  { debian: 'iputils-ping', proof: 'ping', use: 'traffic between namespaces' },
  { debian: 'iputils-tracepath', proof: 'tracepath', use: 'hops and MTU of a path' },
  { debian: 'procps', proof: 'ps', use: 'memory budgets' },
  { debian: 'wireguard-go', proof: 'wireguard-go', use: 'interoperability: the Go implementation' },
  { debian: 'wireguard-tools', proof: 'wg', use: 'interoperability: keys, configuration, status' },
  { debian: 'iperf3', proof: 'iperf3', use: 'throughput' },
  {
    debian: 'nftables',
    proof: 'nft',
    use: 'NATs of the laboratory; reads back the rules that netlink made',
  },
  { debian: 'mosquitto', proof: 'mosquitto', use: 'a real broker' },
  { debian: 'mosquitto-clients', proof: 'mosquitto_sub', use: 'an independent MQTT client' },
  { debian: 'coturn', proof: 'turnserver', use: 'a real STUN and TURN server' },
  { debian: 'tinyproxy-bin', proof: 'tinyproxy', use: 'a real HTTP proxy' },
  {
    debian: 'conntrack',
    proof: 'conntrack',
    use: 'empties the table of a NAT whose address changes',
  },
  { debian: 'openssl', proof: 'openssl', use: 'certificates; an independent TLS client' },
  {
    debian: 'python3-websockets',
    proof: '/usr/lib/python3/dist-packages/websockets/__init__.py',
    use: 'interoperability: WebSocket',
  },
  { debian: 'dnsmasq-base', proof: 'dnsmasq', use: 'the resolver that routers run' },
  { debian: 'unbound', proof: 'unbound', use: 'a real DNS server over TLS and HTTPS' },
  { debian: 'bind9-dnsutils', proof: 'dig', use: 'an independent DNS client' },
  { debian: 'knot-dnsutils', proof: 'kdig', use: 'another one, that pipelines over TCP' },
  { debian: 'dnsperf', proof: 'dnsperf', use: 'queries a second, in the benchmarks' },
  { debian: 'tcpdump', proof: 'tcpdump', use: 'shows what is on the wire' },
  { debian: 'strace', proof: 'strace', use: 'system calls per packet' },
  { debian: 'jq', proof: 'jq', use: 'reads log lines as an operator would' },
  { debian: 'curl', proof: 'curl', use: 'the metrics endpoint' },
  {
    debian: 'python3-aioice',
    proof: '/usr/lib/python3/dist-packages/aioice',
    use: 'interoperability: ICE',
  },
  { debian: 'busybox', proof: 'busybox', use: "init scripts run under OpenWrt's shell" },
  { debian: 'gcc', proof: 'gcc', use: 'the native file for this machine' },
  { debian: 'libc6-dev', proof: '/usr/include/stdint.h', use: 'headers of the native file' },
  ...crossCompiler('x64', 'x86-64', 'x86_64-linux-gnu', 'amd64'),
  ...crossCompiler('arm64', 'aarch64', 'aarch64-linux-gnu', 'arm64'),
  ...crossCompiler('arm', 'arm', 'arm-linux-gnueabihf', 'armhf'),
];

function crossCompiler(cpu, compiler, triple, debianArch) {
  if (cpu === arch) return [];
  const debian = cpu === 'arm' ? `gcc-${triple}` : `gcc-${compiler}-linux-gnu`;
  const use = `the native file for ${cpu}, in the package`;
  return [
    { debian, proof: `${triple}-gcc`, use },
    { debian: `libc6-dev-${debianArch}-cross`, proof: `/usr/${triple}/include/stdint.h`, use },
  ];
}

/** The packages of which there is no sign on this machine. */
export function missingPackages() {
  return needed.filter(({ proof }) => !isThere(proof));
}

/**
 * Installs packages without starting the services that they bring. Returns those that could not be
 * installed.
 */
export function install(packages) {
  for (const { debian, use } of packages) console.log(`  ${debian.padEnd(26)} ${use}`);
  withoutServices(() => {
    apt('update', '-q');
    const names = packages.map(({ debian }) => debian);
    // One name that the mirror lacks fails them all, so the rest is tried one by one.
    if (!apt('install', '-qy', '--no-install-recommends', ...names)) {
      for (const name of names) apt('install', '-qy', '--no-install-recommends', name);
    }
  });
  for (const service of existsSync('/run/systemd/system')
    ? ['mosquitto', 'coturn', 'unbound']
    : []) {
    if (packages.some(({ debian }) => debian === service)) {
      spawnSync('systemctl', ['disable', '--now', service], { stdio: 'ignore' });
    }
  }
  return packages.filter(({ proof }) => !isThere(proof));
}

/** Runs `work` while invoke-rc.d is told to start nothing (exit 101 of policy-rc.d). */
function withoutServices(work) {
  const policy = '/usr/sbin/policy-rc.d';
  const isOurs = !existsSync(policy); // where the machine has one, it stays in charge
  if (isOurs) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    work();
  } finally {
    if (isOurs) rmSync(policy);
  }
}

function apt(...parameters) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  try {
    execFileSync('apt-get', parameters, { env, stdio: ['ignore', 'ignore', 'inherit'] });
    return true;
  } catch {
    return false; // apt has said why; what is still missing is looked up afterwards
  }
}

function isThere(proof) {
  if (proof.startsWith('/')) return existsSync(proof);
  const folders = `${process.env.PATH}:/usr/sbin:/sbin`.split(':');
  return folders.some((folder) => existsSync(`${folder}/${proof}`));
}
