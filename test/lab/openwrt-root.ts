import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface OpenWrtRootOptions {
  /** Of the lab; everything lies in it and stays writable. */
  readonly directory: string;
  /** The resolvers of the provider, as netifd writes them down. */
  readonly providers: readonly string[];
  /** Names of the router's own, as in a hosts file. */
  readonly hosts: readonly string[];
}

const INSTANCE = 'cfg01411c';

/**
 * What a program finds on OpenWrt: `uci`, /etc/config/dhcp, the init script of dnsmasq, and the files by
 * which all of them know the resolvers. It is laid over the machine's own files for programs that run
 * inside `command`, which must have a mount namespace of their own, as `ip netns exec` gives them.
 */
export class OpenWrtRoot {
  readonly #directory: string;

  constructor({ directory, providers, hosts }: OpenWrtRootOptions) {
    this.#directory = directory;
    const root = join(directory, 'openwrt');
    const write = (path: string, lines: readonly string[], mode = 0o644): void => {
      const file = join(root, path);
      mkdirSync(join(file, '..'), { recursive: true });
      writeFileSync(file, `${lines.join('\n')}\n`, { mode });
    };
    const own = ['127.0.0.1', '::1'];
    write('etc/config/dhcp', ['config dnsmasq']);
    write(
      'etc/resolv.conf',
      own.map((address) => `nameserver ${address}`),
    );
    write('etc/hosts', ['127.0.0.1 localhost', ...hosts]);
    write('etc/init.d/dnsmasq', this.#initScript(), 0o755);
    write('sbin/uci', ['#!/bin/sh', `echo dhcp.${INSTANCE}=dnsmasq`], 0o755);
    write(
      'tmp/resolv.conf.d/resolv.conf.auto',
      providers.map((address) => `nameserver ${address}`),
    );
    mkdirSync(join(root, CONF_DIR), { recursive: true });
    write('enter', enterScript(directory, root), 0o755);
  }

  /** The words in front of a command that is to see this root. */
  get command(): readonly string[] {
    return [join(this.#directory, 'openwrt', 'enter')];
  }

  /** How the router's dnsmasq is started, and started anew. */
  get restartDnsmasq(): readonly string[] {
    return [...this.command, '/etc/init.d/dnsmasq', 'restart'];
  }

  /** What is in it is what dnsmasq has been told by others. */
  get confDir(): string {
    return join(this.#directory, 'openwrt', CONF_DIR);
  }

  /** What OpenWrt's init script makes of its default configuration. */
  #initScript(): readonly string[] {
    const pidFile = join(this.#directory, 'dnsmasq.pid');
    const options = [
      `--conf-file=/dev/null --conf-dir=/${CONF_DIR} --pid-file=${pidFile} --user=root`,
      `--log-facility=${join(this.#directory, 'dnsmasq.log')}`,
      '--resolv-file=/tmp/resolv.conf.d/resolv.conf.auto --expand-hosts --domain=lan --local=/lan/',
      '--domain-needed --bogus-priv --localise-queries --stop-dns-rebind --rebind-localhost-ok',
      '--bind-dynamic --interface=br-lan --interface=lo --edns-packet-max=1232 --cache-size=1000',
    ];
    return [
      '#!/bin/sh',
      `echo restarted >> ${join(this.#directory, 'restarts')}`,
      `[ -e ${pidFile} ] && pid=$(cat ${pidFile}) && kill $pid`,
      // A dead one is there until its parent has looked, which some take seconds for.
      'while [ -n "$pid" ] && grep -qs "^State:.[^Z]" /proc/$pid/status; do sleep 0.02; done',
      `exec dnsmasq ${options.join(' ')}`,
    ];
  }
}

/** In memory, as on a router. */
const CONF_DIR = `tmp/dnsmasq.${INSTANCE}.d`;

/** /sbin is where /usr/sbin is, or a link to it: the mount follows links. */
function enterScript(directory: string, root: string): readonly string[] {
  return [
    '#!/bin/sh -e',
    ...['etc', 'sbin'].map(
      (name) => `mount -t overlay overlay -o lowerdir=${root}/${name}:/${name} /${name}`,
    ),
    // The folder of the lab may lie in /tmp, and is to be written to; no layer may lie in another.
    'mount -t tmpfs tmpfs /mnt',
    'mkdir /mnt/lab',
    `mount --bind ${directory} /mnt/lab`,
    `cp -r ${root}/tmp /mnt`,
    'mount -t overlay overlay -o lowerdir=/mnt/tmp:/tmp /tmp',
    `mount --bind /mnt/lab ${directory}`,
    `mount --bind ${root}/${CONF_DIR} /${CONF_DIR}`,
    'cd "$PWD"',
    'exec "$@"',
  ];
}
