import type { PathsStatus, RelayStatus } from '../../core/engine/path-status.ts';
import type { PeerStatus, Status } from '../../core/engine/status.ts';
import { peerCause, RELAY_CAUSES, STREAMS_CAUSES } from '../causes.ts';
import { CommandError } from '../exit-code.ts';
import { formatDetail, formatMs, formatSections, type Detail } from '../table.ts';
import { showStatus, type View } from './ask-status.ts';

/** How a peer is reached, with its state and cause as `culvert status` has them. */
type PeerPaths = Pick<PeerStatus, 'id' | 'state' | 'cause'> & Omit<PathsStatus, 'state'>;

/** What `culvert paths --json` prints. */
interface PathsReport {
  readonly peers: readonly PeerPaths[];
  readonly relays: readonly RelayStatus[];
  readonly streams: Status['streams'];
}

/** `culvert paths`: how the Culvert peers, or the one with this id, are reached and why; the relays. */
export function paths(view: View, id: string | undefined): Promise<void> {
  return showStatus(view, (status) => reportOf(status, id), formatReport);
}

function reportOf({ peers, relays, streams }: Status, id: string | undefined): PathsReport {
  const wanted = peers.filter((peer) => id === undefined || peer.id === id);
  if (id !== undefined && wanted.length === 0) {
    throw new CommandError('failure', `no peer has the id '${id}', see: culvert status`);
  }
  const found = wanted.flatMap(({ id: peer, state, cause, path }) =>
    path === undefined ? [] : [{ ...path, id: peer, state, cause }],
  );
  return { peers: found, relays, streams };
}

function formatReport({ peers, relays, streams }: PathsReport): string {
  const peerTable = formatSections(
    ['PEER', 'STATE', 'PATH', 'ROUND TRIP'],
    peers.map((peer) => ({
      row: [peer.id, peer.state, peer.kind ?? '-', formatMs(peer.rttMs)],
      details: peerDetails(peer),
    })),
  );
  const relayTable = formatSections(
    ['RELAY', 'STATE', 'ROUND TRIP'],
    relays.map((relay) => ({
      row: [relay.url, relay.state, formatMs(relay.rttMs)],
      details: relayDetails(relay),
    })),
  );
  return [
    peers.length > 0 ? peerTable : 'no paths are sought: they are to peers of kind culvert',
    ...(relays.length > 0 ? ['', relayTable] : []),
    ...(streams === undefined ? [] : ['', formatStreams(streams)]),
  ].join('\n');
}

type Alternative = PathsStatus['alternatives'][number];

function peerDetails(peer: PeerPaths): readonly Detail[] {
  const { relay, report, alternatives } = peer;
  const cause = peerCause(peer.cause ?? peer.why);
  return [
    ...(peer.remote === undefined ? [] : [['way', formatWay(peer)] as const]),
    ...(relay === undefined ? [] : [['relay', relay] as const]),
    ['why', cause.meaning],
    ...(cause.cure === undefined ? [] : [['cure', cause.cure] as const]),
    ...(report === undefined
      ? []
      : [['peer', `sends ${report.kind}, ${formatMs(report.rttMs)}`] as const]),
    ...alternatives.map((other) => ['or', formatAlternative(other)] as const),
  ];
}

function relayDetails({ why, detail, relayed, mapped }: RelayStatus): readonly Detail[] {
  const cause = why === undefined ? undefined : RELAY_CAUSES[why];
  const given = detail === undefined ? [] : [detail];
  const isExact = detail !== undefined && why === 'not-reachable';
  return [
    ...(cause === undefined ? [] : [['why', [cause.meaning, ...given].join(': ')] as const]),
    // What exactly was met names its own cure.
    ...(cause?.cure === undefined || isExact ? [] : [['cure', cause.cure] as const]),
    ...(relayed.length === 0 ? [] : [['gives', relayed.join(' ')] as const]),
    ...(mapped === undefined ? [] : [['sees', mapped] as const]),
  ];
}

function formatAlternative(other: Alternative): string {
  return `${other.kind} ${formatMs(other.rttMs)}, ${formatWay(other)}`;
}

/** `192.0.2.1:51820 → 192.0.2.2:51820`, `stream tls → 192.0.2.2:443` */
function formatWay({
  local,
  remote,
  protocol,
}: Pick<Alternative, 'local' | 'remote' | 'protocol'>): string {
  const spoken = protocol === undefined ? [] : [`stream ${protocol}`];
  return [...spoken, ...(local === undefined ? [] : [local]), '→', remote].join(' ');
}

function formatStreams({ listening, port, publicPort, why }: NonNullable<Status['streams']>) {
  const told = publicPort === undefined ? '' : `, peers are told ${publicPort}`;
  const state = listening ? 'accepted' : 'not accepted';
  const { meaning, cure } = why === undefined ? {} : STREAMS_CAUSES[why];
  return [
    `streams are ${state} at port ${port}${told}`,
    ...(meaning === undefined ? [] : [formatDetail(['why', meaning])]),
    ...(cure === undefined ? [] : [formatDetail(['cure', cure])]),
  ].join('\n');
}
