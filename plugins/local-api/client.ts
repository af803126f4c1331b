import { connect } from 'node:net';
import type { Millis } from '../../core/sansio/instant.ts';
import { TextSplitter } from '../../core/sansio/text-splitter.ts';

/** What the daemon answered, or a message for the user that names the cure. */
export type LocalApiAnswer =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly why: LocalApiFailure; readonly message: string };

export type LocalApiFailure =
  'not-running' | 'not-permitted' | 'timeout' | 'closed' | 'refused' | 'failed';

/** Asks the daemon on `path` to run a method. Never rejects. */
export function callLocalApi(
  path: string,
  method: string,
  params: unknown,
  timeoutMs: Millis,
): Promise<LocalApiAnswer> {
  return new Promise((resolve) => {
    const splitter = new TextSplitter('\n', Infinity);
    const socket = connect(path);
    const timer = setTimeout(() => {
      const seconds = timeoutMs / 1000;
      settle('timeout', `culvert does not answer within ${seconds} s: ${RESTART}`);
    }, timeoutMs);

    function finish(answer: LocalApiAnswer): void {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    }
    function settle(why: LocalApiFailure, message: string): void {
      finish({ ok: false, why, message });
    }

    socket.setEncoding('utf8');
    socket.once('connect', () => {
      socket.write(`${JSON.stringify({ jsonrpc: '2.0', id: 1, method, params })}\n`);
    });
    socket.on('data', (piece: string) => {
      const lines = splitter.push(piece);
      const line = lines.ok ? lines.value[0] : undefined;
      if (line !== undefined) finish(readAnswer(method, line));
    });
    socket.once('error', (error: NodeJS.ErrnoException) => settle(...connectFailure(path, error)));
    socket.once('close', () => settle('closed', `culvert closed the connection: ${RESTART}`));
  });
}

const START = 'start it with "culvert run", on a router with "service culvert start"';
const RESTART = 'see its log, or restart it';

function connectFailure(path: string, error: NodeJS.ErrnoException): [LocalApiFailure, string] {
  switch (error.code ?? '') {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return ['not-running', `culvert is not running (nobody answers on ${path}): ${START}`];
    case 'EACCES':
    case 'EPERM':
      return ['not-permitted', `no permission to use ${path}: run the command as root`];
    default:
      return ['failed', `${path}: ${error.message}`];
  }
}

function readAnswer(method: string, line: string): LocalApiAnswer {
  try {
    const answer = JSON.parse(line) as { result?: unknown; error?: { message?: unknown } } | null;
    if (answer?.error !== undefined) {
      const message = `culvert refused "${method}": ${String(answer.error.message)}`;
      return { ok: false, why: 'refused', message };
    }
    if (answer?.result !== undefined) return { ok: true, value: answer.result };
  } catch {
    // Reported below with all that is no answer.
  }
  return { ok: false, why: 'failed', message: 'what answers on the socket is not culvert' };
}
