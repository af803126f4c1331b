import {
  ipAddressBytes,
  ipAddressFromBytes,
  ipFamily,
  type IpAddress,
} from '../../net/ip-address.ts';
import type { AttributeReader } from '../attribute.ts';
import type { MessageWriter } from '../message-writer.ts';
import { IpAttribute, ProtocolAttribute, TupleAttribute } from './constants.ts';

/** How the packets of one direction of a connection look. */
export interface Tuple {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  /** Of IP: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6. */
  readonly protocol: number;
  /** Absent for protocols without ports. */
  readonly sourcePort?: number | undefined;
  readonly destinationPort?: number | undefined;
  readonly icmp?: IcmpTuple | undefined;
}

export interface IcmpTuple {
  readonly id: number;
  readonly type: number;
  readonly code: number;
}

/** Writes a tuple, or the parts of it that a filter compares. */
export function writeTuple(writer: MessageWriter, type: number, tuple: Partial<Tuple>): void {
  writer.nested(type, () => {
    const { source, destination } = tuple;
    if (source !== undefined || destination !== undefined) {
      writer.nested(TupleAttribute.ip, () => {
        if (source !== undefined) writeAddress(writer, IpAttribute.source4, source);
        if (destination !== undefined) writeAddress(writer, IpAttribute.destination4, destination);
      });
    }
    if (tuple.protocol !== undefined) {
      writer.nested(TupleAttribute.protocol, () => writeProtocol(writer, tuple));
    }
  });
}

/** Reads a tuple; `undefined` when its addresses or its protocol are missing. */
export function readTuple(reader: AttributeReader): Tuple | undefined {
  let source: IpAddress | undefined;
  let destination: IpAddress | undefined;
  const numbers = new Map<number, number>();
  while (reader.next()) {
    const inner = reader.nested();
    if (reader.type === TupleAttribute.ip) {
      while (inner.next()) {
        const address = addressOf(inner.value);
        if (inner.type === IpAttribute.source4 || inner.type === IpAttribute.source6) {
          source = address;
        } else destination = address;
      }
    } else if (reader.type === TupleAttribute.protocol) {
      while (inner.next()) numbers.set(inner.type, inner.be16() ?? inner.u8() ?? 0);
    }
  }
  const protocol = numbers.get(ProtocolAttribute.number);
  if (source === undefined || destination === undefined || protocol === undefined) return undefined;
  const sourcePort = numbers.get(ProtocolAttribute.sourcePort);
  const destinationPort = numbers.get(ProtocolAttribute.destinationPort);
  const icmp = icmpOf(numbers);
  return {
    source,
    destination,
    protocol,
    ...(sourcePort !== undefined && { sourcePort }),
    ...(destinationPort !== undefined && { destinationPort }),
    ...(icmp && { icmp }),
  };
}

/** The attributes of IPv6 follow those of IPv4. */
function writeAddress(writer: MessageWriter, type: number, address: IpAddress): void {
  writer.bytes(ipFamily(address) === 4 ? type : type + 2, ipAddressBytes(address));
}

function addressOf(bytes: Uint8Array): IpAddress | undefined {
  return bytes.length === 4 || bytes.length === 16 ? ipAddressFromBytes(bytes) : undefined;
}

function writeProtocol(writer: MessageWriter, tuple: Partial<Tuple>): void {
  const { protocol = 0, sourcePort, destinationPort, icmp } = tuple;
  writer.u8(ProtocolAttribute.number, protocol);
  if (sourcePort !== undefined) writer.be16(ProtocolAttribute.sourcePort, sourcePort);
  if (destinationPort !== undefined) {
    writer.be16(ProtocolAttribute.destinationPort, destinationPort);
  }
  if (icmp === undefined) return;
  const is6 = protocol === ICMPV6;
  writer.be16(is6 ? ProtocolAttribute.icmp6Id : ProtocolAttribute.icmpId, icmp.id);
  writer.u8(is6 ? ProtocolAttribute.icmp6Type : ProtocolAttribute.icmpType, icmp.type);
  writer.u8(is6 ? ProtocolAttribute.icmp6Code : ProtocolAttribute.icmpCode, icmp.code);
}

const ICMPV6 = 58;

function icmpOf(numbers: ReadonlyMap<number, number>): IcmpTuple | undefined {
  const { icmpId, icmpType, icmpCode, icmp6Id, icmp6Type, icmp6Code } = ProtocolAttribute;
  const id = numbers.get(icmpId) ?? numbers.get(icmp6Id);
  if (id === undefined) return undefined;
  const type = numbers.get(icmpType) ?? numbers.get(icmp6Type) ?? 0;
  return { id, type, code: numbers.get(icmpCode) ?? numbers.get(icmp6Code) ?? 0 };
}
