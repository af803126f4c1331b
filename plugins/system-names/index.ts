import { statSync } from 'node:fs';
import { parseHosts } from '../../core/dns/hosts.ts';
import { parseResolvConf } from '../../core/dns/resolv-conf.ts';
import type { SocketAddress } from '../../core/net/socket-address.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { systemNames, type SystemNames } from '../../core/plugin/system-names.ts';
import type { Log } from '../../core/sansio/log.ts';
import { PathMonitor } from './path-monitor.ts';
import { filesIn, readText } from './text-file.ts';

/** Absolute paths. */
export interface SystemNamesOptions {
  readonly resolvConf?: readonly string[];
  /** Files in the format of resolv.conf that have the resolvers of the provider alone. */
  readonly providerResolvConf?: readonly string[];
  /** Files, or directories of such. */
  readonly hosts?: readonly string[];
}

/** Returns a plugin that reads what the files of the system say of names. */
export function createSystemNames(options: SystemNamesOptions = {}): PluginDefinition<SystemNames> {
  const paths = { ...SYSTEM_PATHS, ...options };
  return {
    name: 'system-names',
    provides: systemNames,
    needs: [],
    create({ log }) {
      const monitors = new Set<PathMonitor>();
      const api: SystemNames = {
        read: () => ({
          nameservers: readNameservers(paths.resolvConf, log),
          providerNameservers: readNameservers(paths.providerResolvConf, log),
          hosts: parseHosts(readHosts(paths.hosts, log)),
        }),
        monitor(onChange) {
          const monitor = new PathMonitor(Object.values(paths).flat(), onChange);
          monitors.add(monitor);
          return () => {
            monitor.close();
            monitors.delete(monitor);
          };
        },
      };
      const stop = () => {
        for (const monitor of monitors) monitor.close();
        monitors.clear();
      };
      return { api, stop };
    },
  };
}

const SYSTEM_PATHS: Required<SystemNamesOptions> = {
  resolvConf: ['/etc/resolv.conf'],
  // Of OpenWrt's netifd, systemd-resolved and NetworkManager.
  providerResolvConf: [
    '/tmp/resolv.conf.d/resolv.conf.auto',
    '/run/systemd/resolve/resolv.conf',
    '/run/NetworkManager/no-stub-resolv.conf',
  ],
  // The directory is what dnsmasq and odhcpd of OpenWrt share.
  hosts: ['/etc/hosts', '/tmp/hosts'],
};

const MOST_RESOLV_CONF_BYTES = 64 * 1024;
/** Of all files together. */
const MOST_HOSTS_BYTES = 4 * 1024 * 1024;

function readNameservers(paths: readonly string[], log: Log): readonly SocketAddress[] {
  const texts = paths.map((path) => readOrWarn(path, MOST_RESOLV_CONF_BYTES, log));
  return [...new Set(texts.flatMap(parseResolvConf))];
}

function readHosts(paths: readonly string[], log: Log): readonly string[] {
  let left = MOST_HOSTS_BYTES;
  return paths
    .flatMap((path) => filesAt(path, log))
    .map((path) => {
      const text = readOrWarn(path, left, log);
      left -= text.length;
      return text;
    });
}

function filesAt(path: string, log: Log): readonly string[] {
  try {
    const isDirectory = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
    return isDirectory ? filesIn(path) : [path];
  } catch (error) {
    warn(path, error, log);
    return [];
  }
}

function readOrWarn(path: string, most: number, log: Log): string {
  try {
    return readText(path, most);
  } catch (error) {
    warn(path, error, log);
    return '';
  }
}

function warn(path: string, error: unknown, log: Log): void {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
  log.warn('a file with names of the system cannot be read', { path, code });
}
