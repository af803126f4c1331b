import { ipFamily, type IpFamily } from '../../net/ip-address.ts';
import { MessageFlag } from '../constants.ts';
import type { MessageWriter } from '../message-writer.ts';
import { beginNetfilter, netfilterFamily, NetfilterFamily, Subsystem } from '../nfnetlink.ts';
import type { Connection } from './connection.ts';
import { ConnectionAttribute, ConntrackMessage, FilterAttribute } from './constants.ts';
import { kernelTupleFilter, type ConnectionFilter } from './filter.ts';
import { writeTuple } from './tuple.ts';

/**
 * Requests the connections of one family (a dump). The kernel applies what it can of the filter, older
 * ones nothing: what comes is to be compared again.
 */
export function encodeConnectionsQuery(
  writer: MessageWriter,
  family: IpFamily,
  filter: ConnectionFilter,
): Uint8Array {
  begin(writer, ConntrackMessage.get, MessageFlag.dump, netfilterFamily(family));
  const { mark, protocol } = filter;
  if (mark !== undefined) {
    writer.be32(ConnectionAttribute.mark, mark.value);
    writer.be32(ConnectionAttribute.markMask, mark.mask);
  }
  const original = kernelTupleFilter(filter.original, protocol);
  const reply = kernelTupleFilter(filter.reply, undefined);
  if (original.flags !== 0) writeTuple(writer, ConnectionAttribute.original, original.tuple);
  if (reply.flags !== 0) writeTuple(writer, ConnectionAttribute.reply, reply.tuple);
  if (original.flags !== 0 || reply.flags !== 0) {
    writer.nested(ConnectionAttribute.filter, () => {
      writer.u32(FilterAttribute.originalFlags, original.flags);
      writer.u32(FilterAttribute.replyFlags, reply.flags);
    });
  }
  return writer.end().take();
}

/**
 * Forgets a connection; the kernel refuses with ENOENT when there is none. With its id, only the very
 * entry goes and not a later one.
 */
export function encodeConnectionRemoval(
  writer: MessageWriter,
  connection: Pick<Connection, 'original' | 'zone' | 'id'>,
): Uint8Array {
  const { original, zone, id } = connection;
  const family = netfilterFamily(ipFamily(original.source));
  begin(writer, ConntrackMessage.remove, MessageFlag.ack, family);
  // Without a tuple this request would forget everything.
  writeTuple(writer, ConnectionAttribute.original, original);
  if (zone !== 0) writer.be16(ConnectionAttribute.zone, zone);
  if (id !== undefined) writer.be32(ConnectionAttribute.id, id);
  return writer.end().take();
}

/** Requests the counters of the table, which shows whether there is one. */
export function encodeStatisticsQuery(writer: MessageWriter): Uint8Array {
  const family = NetfilterFamily.unspecified;
  begin(writer, ConntrackMessage.getStatistics, MessageFlag.ack, family);
  return writer.end().take();
}

function begin(writer: MessageWriter, kind: number, flags: number, family: number): void {
  beginNetfilter(writer, Subsystem.conntrack, kind, flags, family);
}
