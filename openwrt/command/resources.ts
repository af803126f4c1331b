import type {
  AuthorizationStatus,
  GatewayStatus,
  ResourcesStatus,
  ServedName,
  ServedResource,
  UsedName,
  UsedResource,
} from '../../core/engine/resource-status.ts';
import { NAME_CAUSES, peerCause, RESOURCE_CAUSES } from '../causes.ts';
import { CommandError } from '../exit-code.ts';
import { formatSections, type Detail } from '../table.ts';
import { answerOf, askDaemon, show, type View } from './ask-status.ts';

/** Of a list in a row, and of authorizations where all resources are shown. */
const MOST_IN_ROW = 2;
const MOST_AUTHORIZATIONS_SHOWN = 5;

/** `culvert resources`: what peers serve us and what we serve them; the one with this id with its names. */
export function resources(view: View, id: string | undefined): Promise<void> {
  return show(view, () => ask(view.socket, id), formatResources);
}

async function ask(socket: string, id: string | undefined): Promise<ResourcesStatus> {
  const params = id === undefined ? {} : { resource: id };
  const all = answerOf(await askDaemon(socket, 'resources', params)) as ResourcesStatus;
  if (id === undefined) return all;
  const used = all.used.filter((it) => it.id === id);
  const served = all.served.filter((it) => it.id === id);
  if (used.length + served.length === 0) {
    throw new CommandError('failure', `no resource has the id '${id}', see: culvert resources`);
  }
  return { used, served };
}

function formatResources({ used, served }: ResourcesStatus): string {
  if (used.length + served.length === 0) {
    return 'there are no resources: the configuration names none (resources)';
  }
  const usedTable = formatSections(
    ['USED', 'TYPE', 'WHAT', 'STATE', 'GATEWAY'],
    used.map((it) => ({ row: usedRow(it), details: usedDetails(it) })),
  );
  const servedTable = formatSections(
    ['SERVED', 'TYPE', 'WHAT', 'STATE', 'PEERS'],
    served.map((it) => ({ row: servedRow(it), details: servedDetails(it) })),
  );
  return [
    ...(used.length === 0 ? [] : [usedTable]),
    ...used.flatMap(({ names }) => formatNames(names, formatUsedNames)),
    ...(served.length === 0 ? [] : [servedTable]),
    ...served.flatMap(({ names }) => formatNames(names, formatServedNames)),
  ].join('\n\n');
}

function usedRow({ id, type, targets, state, gateways }: UsedResource): readonly string[] {
  const inUse = gateways.find(({ isInUse, isReachable }) => isInUse && isReachable);
  return [id, type, formatTargets(targets), state, inUse?.id ?? '-'];
}

function usedDetails(resource: UsedResource): readonly Detail[] {
  const { gateways, setups, why } = resource;
  const counts = Object.entries(setups).filter(([, count]) => count > 0);
  return [
    ...commonDetails(resource),
    ...causeDetails(why),
    ...gateways
      .filter(({ isInUse, isReachable }) => !isInUse || !isReachable)
      .map((gateway) => ['via', formatGateway(gateway)] as const),
    ...(counts.length === 0
      ? []
      : [['names', counts.map(([state, count]) => `${count} ${state}`).join(', ')] as const]),
  ];
}

function servedRow({ id, type, targets, state, authorizations }: ServedResource) {
  return [id, type, formatTargets(targets), state, String(authorizations.length)];
}

function servedDetails(resource: ServedResource): readonly Detail[] {
  const { authorizations, nameCount, names, why } = resource;
  const most = names === undefined ? MOST_AUTHORIZATIONS_SHOWN : Infinity;
  const more = authorizations.length - most;
  return [
    ...commonDetails(resource),
    ...causeDetails(why),
    ...authorizations.slice(0, most).map((it) => ['for', formatAuthorization(it)] as const),
    ...(more > 0 ? [['for', `${more} more, see: culvert resources ${resource.id}`] as const] : []),
    ...(nameCount === 0 ? [] : [['names', `${nameCount} in use`] as const]),
  ];
}

function commonDetails({ name, targets, filters, names }: UsedResource | ServedResource) {
  const isShort = names === undefined || targets.length <= MOST_IN_ROW;
  const more = isShort ? [] : [['what', targets.join(' ')] as const];
  return [
    ...(name === undefined ? [] : [['name', name] as const]),
    ...more,
    ...(filters.length === 0 ? [] : [['only', formatFilters(filters)] as const]),
  ];
}

function causeDetails(why: UsedResource['why'] | ServedResource['why']): readonly Detail[] {
  if (why === undefined) return [];
  const { meaning, cure } = RESOURCE_CAUSES[why];
  return [['why', meaning], ...(cure === undefined ? [] : [['cure', cure] as const])];
}

function formatTargets(targets: readonly string[]): string {
  if (targets.length === 0) return 'the Internet';
  const more = targets.length - MOST_IN_ROW;
  const first = targets.slice(0, MOST_IN_ROW).join(' ');
  return more > 0 ? `${first} and ${more} more` : first;
}

function formatFilters(filters: readonly string[]): string {
  return filters.join('; ');
}

/** `depot, connected`, `branch, no path: no path answered` */
function formatGateway({ id, state, cause }: GatewayStatus): string {
  const why = cause === undefined ? '' : `: ${peerCause(cause).meaning}`;
  return `${id}, ${state}${why}`;
}

/** `laptop, connected; from 10.0.0.0/24; tcp 443; until 2027-01-31T18:00:00Z` */
function formatAuthorization(authorization: AuthorizationStatus): string {
  const { peer, peerState, sources, filters, expiresUnixMs } = authorization;
  return [
    `${peer}, ${peerState}`,
    ...(sources.length === 0 ? [] : [`from ${sources.join(' ')}`]),
    ...(filters.length === 0 ? [] : [formatFilters(filters)]),
    ...(expiresUnixMs === undefined ? [] : [`until ${formatTime(expiresUnixMs)}`]),
  ].join('; ');
}

/** RFC 3339, to the second. */
function formatTime(unixMs: number): string {
  return new Date(unixMs).toISOString().replace(/\.\d+Z$/, 'Z');
}

function formatNames<Name>(
  names: readonly Name[] | undefined,
  format: (names: readonly Name[]) => string,
): readonly string[] {
  return names === undefined || names.length === 0 ? [] : [format(names)];
}

function formatUsedNames(names: readonly UsedName[]): string {
  return formatSections(
    ['NAME', 'STATE', 'GATEWAY'],
    names.map(({ domain, state, why, gateway, proxies }) => ({
      row: [domain, state, gateway],
      details: [
        ...(why === undefined ? [] : [['why', NAME_CAUSES[why]] as const]),
        ...addressDetails('proxy', proxies),
      ],
    })),
  );
}

function formatServedNames(names: readonly ServedName[]): string {
  return formatSections(
    ['NAME', 'PEER'],
    names.map(({ domain, peer, proxies, addresses }) => ({
      row: [domain, peer],
      details: [...addressDetails('proxy', proxies), ...addressDetails('is', addresses)],
    })),
  );
}

/** IPv4 and IPv6 on lines of their own. */
function addressDetails(label: string, addresses: readonly string[]): readonly Detail[] {
  const isIpv6 = (address: string): boolean => address.includes(':');
  const lines = [addresses.filter((it) => !isIpv6(it)), addresses.filter(isIpv6)];
  return lines.filter((it) => it.length > 0).map((it) => [label, it.join(' ')]);
}
