import { existsSync } from 'node:fs';
import type { DnsmasqPlace } from './dnsmasq.ts';
import { run } from './run.ts';

const UCI = '/sbin/uci';
const CONFIG = '/etc/config/dhcp';

/** Returns where OpenWrt keeps the instances of dnsmasq, `undefined` on other systems. */
export async function findOnOpenWrt(): Promise<DnsmasqPlace | undefined> {
  if (!existsSync(UCI) || !existsSync(CONFIG)) return undefined;
  const shown = await run([UCI, '-q', '-X', 'show', 'dhcp']);
  if (!shown.ok) return undefined;
  const confDirs = confDirsOf(shown.value);
  return confDirs.length === 0
    ? undefined
    : { confDirs, restart: ['/etc/init.d/dnsmasq', 'restart'] };
}

/**
 * Returns the conf-dir of each instance as its init script chooses it. The file that the script makes of
 * it says so too, but is not there, or half there, while the system starts.
 */
export function confDirsOf(shown: string): readonly string[] {
  return Array.from(shown.matchAll(/^dhcp\.(\w+)=dnsmasq$/gm), ([, section = '']) => {
    const option = new RegExp(`^dhcp\\.${section}\\.confdir='([^',]+)`, 'm').exec(shown);
    return option?.[1] ?? `/tmp/dnsmasq.${section}.d`;
  });
}
