import type { ResourcesSummary } from '../../core/engine/resource-status.ts';
import type { PeerStatus, Status } from '../../core/engine/status.ts';
import { peerCause } from '../causes.ts';
import { formatAgo, formatBytes, formatMs, formatTable } from '../table.ts';
import { showStatus, type View } from './ask-status.ts';

/** `culvert status`: one line about the daemon, then a table of its peers. */
export function status(view: View): Promise<void> {
  return showStatus(view, (current) => current, formatStatus);
}

/** Renders the status for people. */
function formatStatus(status: Status, nowUnixMs: number): string {
  const lines = [headline(status)];
  if (status.lastError !== undefined) lines.push(`last error: ${status.lastError}`);
  if (status.resources !== undefined) lines.push(formatResources(status.resources));
  if (status.peers.length > 0) {
    lines.push(
      '',
      formatTable([PEER_COLUMNS, ...status.peers.map((peer) => peerRow(peer, nowUnixMs))]),
    );
    const cures = status.peers.flatMap(formatCure);
    if (cures.length > 0) lines.push('', ...cures);
  }
  const drops = Object.entries(status.drops);
  if (drops.length > 0) {
    lines.push('', `dropped: ${drops.map(([reason, count]) => `${reason} ${count}`).join(', ')}`);
  }
  return lines.join('\n');
}

const PEER_COLUMNS = ['PEER', 'STATE', 'PATH', 'ENDPOINT', 'HANDSHAKE', 'TOOK', 'RECEIVED', 'SENT'];

function headline({ phase, interface: own, fleet, relays, streams, drain }: Status): string {
  const parts: string[] = [phase];
  if (own !== undefined) {
    parts.push(`${own.name} ${own.addresses.join(' ')} port ${own.listenPort} mtu ${own.mtu}`);
  }
  if (fleet !== undefined) {
    const broker =
      fleet.broker === undefined
        ? 'broker away'
        : `broker ${fleet.broker} (MQTT ${fleet.protocol})`;
    parts.push(
      `fleet ${fleet.fleet}/${fleet.device} version ${fleet.version ?? 'none'}, ${broker}`,
    );
  }
  const ready = relays.filter(({ state }) => state === 'ready').length;
  if (ready < relays.length) parts.push(`${ready} of ${relays.length} relays ready`);
  if (streams?.listening === false) {
    parts.push(`streams not accepted at ${streams.port} (${streams.why ?? 'not yet'})`);
  }
  if (drain !== undefined) parts.push(formatWaiting(drain.peers.length));
  return parts.join(' · ');
}

function peerRow(peer: PeerStatus, nowUnixMs: number): readonly string[] {
  return [
    peer.id,
    peer.cause === undefined ? peer.state : `${peer.state} (${peer.cause})`,
    formatPath(peer.path),
    peer.path?.remote ?? peer.endpoint ?? '-',
    formatAgo(peer.lastHandshakeUnixMs, nowUnixMs),
    formatMs(peer.handshakeMs),
    formatBytes(peer.rxBytes),
    formatBytes(peer.txBytes),
  ];
}

/** `branch: no path answered. is the peer running?` */
function formatCure({ id, cause }: PeerStatus): readonly string[] {
  if (cause === undefined) return [];
  const { meaning, cure } = peerCause(cause);
  if (cure === undefined && meaning === cause) return [];
  return [`${id}: ${cure === undefined ? meaning : `${meaning}. ${cure}`}`];
}

/** `direct 12.3 ms`; nothing for a peer whose path is not sought, or not found. */
function formatPath(path: PeerStatus['path']): string {
  if (path?.kind === undefined) return '-';
  return path.rttMs === undefined ? path.kind : `${path.kind} ${formatMs(path.rttMs)}`;
}

function formatWaiting(peers: number): string {
  return `waiting for ${peers} ${peers === 1 ? 'peer' : 'peers'}`;
}

/** `resources: 2 of 3 usable, 1 served, 17 sessions · names answered (redirect)` */
function formatResources({ used, usable, served, sessions, dns }: ResourcesSummary): string {
  const counts = [
    ...(used === 0 ? [] : [`${usable} of ${used} usable`]),
    ...(served === 0 ? [] : [`${served} served`]),
    `${sessions} ${sessions === 1 ? 'session' : 'sessions'}`,
  ];
  const isAnswered = dns.state === 'intercepting';
  const names = isAnswered
    ? `names answered (${dns.mode})`
    : `names not answered (${dns.why ?? 'not yet'})`;
  return [`resources: ${counts.join(', ')}`, ...(dns.state === 'off' ? [] : [names])].join(' · ');
}
