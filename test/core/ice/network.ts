import { parseSocketAddress, type SocketAddress } from '../../../core/net/socket-address.ts';

export function at(address: string): SocketAddress {
  const parsed = parseSocketAddress(address);
  if (!parsed.ok) throw new Error(`${parsed.why}: ${address}`);
  return parsed.value;
}
