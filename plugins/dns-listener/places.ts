import { networkInterfaces } from 'node:os';
import { isLinkLocal, parseIpAddress, type IpAddress } from '../../core/net/ip-address.ts';
import {
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../../core/net/socket-address.ts';
import type { WantedDnsListener } from '../../core/plugin/dns-listener.ts';

/** One address to listen at. */
export interface Place {
  /** As the kernel takes it: a link-local address with the interface that it belongs to. */
  readonly host: string;
  readonly port: number;
  readonly address: SocketAddress;
}

/** Returns where to listen, each place once, by a key that tells them apart. */
export function placesOf({
  port,
  interfaces,
  addresses,
}: WantedDnsListener): ReadonlyMap<string, Place> {
  const places = new Map<string, Place>();
  const add = (host: string, ip: IpAddress, at: number): void => {
    places.set(`${host} ${at}`, { host, port: at, address: socketAddress(ip, at) });
  };
  for (const [label, entries = []] of Object.entries(networkInterfaces())) {
    // An address with a label of its own is listed under that: `br-lan:1`.
    const [name = ''] = label.split(':');
    if (!interfaces.includes(name)) continue;
    for (const { address } of entries) {
      const ip = parseIpAddress(address);
      if (!ip.ok) continue;
      add(isLinkLocal(ip.value) ? `${ip.value}%${name}` : ip.value, ip.value, port);
    }
  }
  for (const address of addresses) {
    const ip = socketAddressIp(address);
    add(ip, ip, socketAddressPort(address));
  }
  return places;
}
