import { readFileSync } from 'node:fs';
import { readMessages, type NetlinkMessage } from '../../../../core/netlink/message.ts';
import { decodeHex } from '../../../../core/sansio/hex.ts';

interface Vectors<Bytes> {
  readonly familyQuery: Bytes;
  readonly family: Bytes;
  readonly deviceQuery: Bytes;
  /** Two peers. */
  readonly device: readonly Bytes[];
  /** Two peers, of which the second has 150 allowed IPs and goes on in another message. */
  readonly longDevice: readonly Bytes[];
  readonly set: Bytes;
  readonly setconf: Bytes;
}

/** What `wg` and a kernel said to each other. */
export const CAPTURED: Vectors<Uint8Array> = JSON.parse(
  readFileSync(new URL('../../../vectors/wireguard-device.json', import.meta.url), 'utf8'),
  (_, value) => (typeof value === 'string' ? decodeHex(value) : value),
);

export function messagesOf(datagrams: readonly Uint8Array[]): readonly NetlinkMessage[] {
  return datagrams.flatMap((datagram) => readMessages(datagram).messages);
}
