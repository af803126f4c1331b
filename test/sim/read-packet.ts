import { readIcmpError } from '../../core/packet/icmp.ts';
import { IpPacket } from '../../core/packet/ip-packet.ts';
import { headersOf } from '../core/fastpath/packets.ts';

/** What a host sees in a packet. Ports and flags are of TCP and UDP, type and code of ICMP. */
export interface SeenPacket {
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly flags: number;
  /** Type and code, such as `3/13`. */
  readonly icmp: string;
  /** Of an ICMP error: what it is about. */
  readonly about: SeenPacket | undefined;
  readonly payload: readonly number[];
  readonly bytes: Uint8Array;
}

export function readPacket(bytes: Uint8Array): SeenPacket {
  const ip = new IpPacket();
  const problem = ip.read(bytes, 0, bytes.length);
  if (problem !== undefined) throw new Error(problem);
  const error = readIcmpError(ip);
  const quoted =
    error && bytes.subarray(error.quotedOffset, error.quotedOffset + error.quotedLength);
  return { ...read(bytes, ip), about: quoted && read(quoted, readQuoted(quoted)), bytes };
}

function readQuoted(bytes: Uint8Array): IpPacket {
  const ip = new IpPacket();
  const problem = ip.readQuoted(bytes, 0, bytes.length);
  if (problem !== undefined) throw new Error(problem);
  return ip;
}

function read(bytes: Uint8Array, { source, destination, protocol: number }: IpPacket): SeenPacket {
  const { transport } = headersOf(bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const protocol = number === 6 ? 'tcp' : number === 17 ? 'udp' : 'icmp';
  const hasPorts = protocol !== 'icmp';
  const header = protocol === 'tcp' ? 20 : 8;
  return {
    protocol,
    source,
    destination,
    sourcePort: hasPorts ? view.getUint16(transport) : 0,
    destinationPort: hasPorts ? view.getUint16(transport + 2) : 0,
    flags: protocol === 'tcp' ? (bytes[transport + 13] ?? 0) : 0,
    icmp: hasPorts ? '' : `${bytes[transport] ?? 0}/${bytes[transport + 1] ?? 0}`,
    about: undefined,
    payload: [...bytes.subarray(transport + header)],
    bytes,
  };
}
