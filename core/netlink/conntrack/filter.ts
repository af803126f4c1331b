import { ipFamily, type IpFamily } from '../../net/ip-address.ts';
import { isFullLength, prefixContains, type IpPrefix } from '../../net/ip-prefix.ts';
import type { Connection } from './connection.ts';
import { FilterFlag } from './constants.ts';
import type { Tuple } from './tuple.ts';

/** Which connections are meant: those of which all that is said here is so. */
export interface ConnectionFilter {
  readonly family?: IpFamily;
  readonly protocol?: number;
  readonly original?: TupleFilter;
  readonly reply?: TupleFilter;
  readonly mark?: { readonly value: number; readonly mask: number };
  readonly zone?: number;
}

export interface TupleFilter {
  readonly source?: IpPrefix;
  readonly destination?: IpPrefix;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
}

export function matchesConnection(
  { original, reply, mark, zone }: Connection,
  filter: ConnectionFilter,
): boolean {
  const masked = filter.mark === undefined ? 0 : (mark & filter.mark.mask) >>> 0;
  return (
    (filter.family === undefined || ipFamily(original.source) === filter.family) &&
    (filter.protocol === undefined || original.protocol === filter.protocol) &&
    (filter.zone === undefined || zone === filter.zone) &&
    (filter.mark === undefined || masked === filter.mark.value >>> 0) &&
    matchesTuple(original, filter.original) &&
    matchesTuple(reply, filter.reply)
  );
}

/** The families of which connections can match. */
export function filterFamilies({ family, original, reply }: ConnectionFilter): readonly IpFamily[] {
  const prefixes = [original?.source, original?.destination, reply?.source, reply?.destination];
  const named = prefixes.flatMap((prefix) => (prefix ? [ipFamily(prefix.address)] : []));
  if (family !== undefined) named.push(family);
  return ([4, 6] as const).filter((candidate) => named.every((one) => one === candidate));
}

/**
 * Returns what of a filter the kernel itself can compare (from 5.8 on): whole addresses, and ports of a
 * protocol that is named.
 */
export function kernelTupleFilter(
  filter: TupleFilter | undefined,
  protocol: number | undefined,
): { readonly flags: number; readonly tuple: Partial<Tuple> } {
  const { source, destination } = filter ?? {};
  const sourcePort = protocol === undefined ? undefined : filter?.sourcePort;
  const destinationPort = protocol === undefined ? undefined : filter?.destinationPort;
  const isSource = source !== undefined && isFullLength(source);
  const isDestination = destination !== undefined && isFullLength(destination);
  const flags =
    (isSource ? FilterFlag.source : 0) |
    (isDestination ? FilterFlag.destination : 0) |
    (protocol === undefined ? 0 : FilterFlag.protocol) |
    (sourcePort === undefined ? 0 : FilterFlag.sourcePort) |
    (destinationPort === undefined ? 0 : FilterFlag.destinationPort);
  const tuple: Partial<Tuple> = {
    ...(isSource && { source: source.address }),
    ...(isDestination && { destination: destination.address }),
    ...(protocol !== undefined && { protocol }),
    ...(sourcePort !== undefined && { sourcePort }),
    ...(destinationPort !== undefined && { destinationPort }),
  };
  return { flags, tuple };
}

function matchesTuple(tuple: Tuple, filter: TupleFilter = {}): boolean {
  const { source, destination, sourcePort, destinationPort } = filter;
  return (
    (source === undefined || prefixContains(source, tuple.source)) &&
    (destination === undefined || prefixContains(destination, tuple.destination)) &&
    (sourcePort === undefined || tuple.sourcePort === sourcePort) &&
    (destinationPort === undefined || tuple.destinationPort === destinationPort)
  );
}
