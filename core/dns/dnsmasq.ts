/** What dnsmasq is told, so that it asks us for the names of resources and nobody else. */
import { socketAddressIp, socketAddressPort, type SocketAddress } from '../net/socket-address.ts';
import type { DomainName } from './name.ts';
import type { Pattern } from './pattern.ts';

/**
 * Returns the fewest zones below which all names of the patterns are: of each pattern the literal labels
 * that it ends with, none of them below another, sorted. A pattern that ends with a wildcard
 * (`crm.*`) has no zone: dnsmasq cannot be told of it without being told of all names.
 */
export function zonesOf(patterns: readonly Pattern[]): readonly DomainName[] {
  const zones = new Set(patterns.map((pattern) => pattern.replace(/^.*[*?][^.]*(\.|$)/, '')));
  zones.delete('');
  return [...zones].filter((zone) => !isBelow(zone, zones)).sort() as unknown as DomainName[];
}

/**
 * Returns the text of a file for dnsmasq's conf-dir: names below the zones go to the server, and their
 * answers may hold private addresses (`stop-dns-rebind` would drop the ULAs of proxies). Zones that are
 * no host names are left out: the syntax cannot quote them. Empty where there are none.
 */
export function dnsmasqText(zones: readonly DomainName[], server: SocketAddress): string {
  const target = `${socketAddressIp(server)}#${socketAddressPort(server)}`;
  // A line each: dnsmasq reads no more than 1024 bytes of one.
  const lines = zones
    .filter((zone) => HOST_NAME.test(zone))
    .flatMap((zone) => [`server=/${zone}/${target}`, `rebind-domain-ok=/${zone}/`]);
  return lines.length === 0 ? '' : `${[HEADING, ...lines].join('\n')}\n`;
}

const HEADING = '# Made by culvert for as long as it runs.';
const HOST_NAME = /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/;

function isBelow(zone: string, zones: ReadonlySet<string>): boolean {
  for (let dot = zone.indexOf('.'); dot >= 0; dot = zone.indexOf('.', dot + 1)) {
    if (zones.has(zone.slice(dot + 1))) return true;
  }
  return false;
}
