import type { NatStatus } from '../../core/engine/resource-status.ts';
import type { SessionStatus } from '../../core/engine/sessions.ts';
import { formatBytes, formatSections, formatSpan, type Detail } from '../table.ts';
import { answerOf, askDaemon, show, type View } from './ask-status.ts';

/** Sessions that are shown once, and on a screen that is watched. */
export const MOST_SESSIONS_SHOWN = 1000;
export const MOST_SESSIONS_WATCHED = 20;

/** `culvert nat`: the sessions of resources on both sides, those with the latest packets first. */
export function nat(view: View): Promise<void> {
  const most = view.watch && !view.json ? MOST_SESSIONS_WATCHED : MOST_SESSIONS_SHOWN;
  return show(
    view,
    async () => answerOf(await askDaemon(view.socket, 'nat', { most })) as NatStatus,
    formatNat,
  );
}

function formatNat({ total, sessions }: NatStatus): string {
  if (total === 0) return 'no sessions are open';
  const table = formatSections(
    ['PROTOCOL', 'FROM', 'TO', 'STATE', 'IDLE', 'SENT', 'RECEIVED'],
    sessions.map((session) => ({ row: rowOf(session), details: detailsOf(session) })),
  );
  const count = `${total} ${total === 1 ? 'session' : 'sessions'}`;
  const shown = sessions.length < total ? `, the latest ${sessions.length} of them` : '';
  return `${count}${shown}\n\n${table}`;
}

function rowOf(session: SessionStatus): readonly string[] {
  const { protocol, source, destination, state, idleMs, sentBytes, receivedBytes } = session;
  return [
    protocol,
    formatEndpoint(source),
    formatEndpoint(destination),
    state,
    formatSpan(idleMs),
    formatBytes(sentBytes),
    formatBytes(receivedBytes),
  ];
}

/** What it becomes, and what it is for. */
function detailsOf(session: SessionStatus): readonly Detail[] {
  const { source, destination, translatedSource, translatedDestination } = session;
  const before = [source, destination].map(formatEndpoint);
  const after = [translatedSource, translatedDestination].map(formatEndpoint);
  const isSame = before.every((endpoint, i) => endpoint === after[i]);
  return [...(isSame ? [] : [['as', after.join(' → ')] as const]), ['for', formatPurpose(session)]];
}

/** `crm (crm.corp.example) at branch`, `crm of laptop`, `what lies behind branch` */
function formatPurpose({ role, peer, resource, domain }: SessionStatus): string {
  if (resource === undefined) return `what lies behind ${peer}`;
  const named = domain === undefined ? resource : `${resource} (${domain})`;
  return role === 'client' ? `${named} at ${peer}` : `${named}, used by ${peer}`;
}

function formatEndpoint({ address, port }: SessionStatus['source']): string {
  if (port === 0) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
