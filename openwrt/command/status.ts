import type { Status } from '../../core/engine/status.ts';
import { callLocalApi } from '../../plugins/local-api/index.ts';
import type { DaemonStatus } from '../daemon-status.ts';
import { CommandError } from '../exit-code.ts';
import { formatAgo, formatBytes, formatTable } from '../table.ts';

const ANSWER_TIMEOUT_MS = 5000;
const WATCH_INTERVAL_MS = 1000;
const CLEAR_SCREEN = '\u001b[H\u001b[2J';

/** `culvert status`: one line about the daemon, then a table of its peers. */
export async function status(options: {
  readonly socket: string;
  readonly json: boolean;
  readonly watch: boolean;
  write(text: string): void;
}): Promise<void> {
  for (;;) {
    const current = await askStatus(options.socket);
    const clear = options.watch && !options.json ? CLEAR_SCREEN : '';
    const text = options.json ? JSON.stringify(current) : formatStatus(current, Date.now());
    options.write(`${clear}${text}\n`);
    if (!options.watch) return;
    await new Promise((resolve) => setTimeout(resolve, WATCH_INTERVAL_MS));
  }
}

async function askStatus(socket: string): Promise<DaemonStatus> {
  const answer = await callLocalApi(socket, 'status', {}, ANSWER_TIMEOUT_MS);
  if (!answer.ok) throw new CommandError('not-running', answer.message);
  return answer.value as DaemonStatus;
}

/** Renders the status for people. */
function formatStatus(status: Status, nowUnixMs: number): string {
  const lines = [headline(status)];
  if (status.lastError !== undefined) lines.push(`last error: ${status.lastError}`);
  if (status.peers.length > 0) {
    lines.push(
      '',
      formatTable([PEER_COLUMNS, ...status.peers.map((peer) => peerRow(peer, nowUnixMs))]),
    );
  }
  const drops = Object.entries(status.drops);
  if (drops.length > 0) {
    lines.push('', `dropped: ${drops.map(([reason, count]) => `${reason} ${count}`).join(', ')}`);
  }
  return lines.join('\n');
}

const PEER_COLUMNS = ['PEER', 'STATE', 'ENDPOINT', 'HANDSHAKE', 'TOOK', 'RECEIVED', 'SENT'];

function headline({ phase, interface: own, fleet }: Status): string {
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
  return parts.join(' · ');
}

function peerRow(peer: Status['peers'][number], nowUnixMs: number): readonly string[] {
  return [
    peer.id,
    peer.cause === undefined ? peer.state : `${peer.state} (${peer.cause})`,
    peer.endpoint ?? '-',
    formatAgo(peer.lastHandshakeUnixMs, nowUnixMs),
    peer.handshakeMs === undefined ? '-' : `${peer.handshakeMs.toFixed(1)} ms`,
    formatBytes(peer.rxBytes),
    formatBytes(peer.txBytes),
  ];
}
