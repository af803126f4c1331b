import { callLocalApi, type LocalApiAnswer } from '../../plugins/local-api/index.ts';
import type { DaemonStatus } from '../daemon-status.ts';
import { CommandError } from '../exit-code.ts';

const ANSWER_TIMEOUT_MS = 5000;
const WATCH_INTERVAL_MS = 1000;
const CLEAR_SCREEN = '\u001b[H\u001b[2J';

/** How a command shows what it asks the daemon for. */
export interface View {
  readonly socket: string;
  readonly json: boolean;
  /** Again each second, until the command is interrupted. */
  readonly watch: boolean;
  write(text: string): void;
}

/** Asks the daemon on the socket to run a method. */
export function askDaemon(socket: string, method: string, params: unknown = {}) {
  return callLocalApi(socket, method, params, ANSWER_TIMEOUT_MS);
}

/** Returns what the daemon answered; throws `CommandError` where it did not. */
export function answerOf(answer: LocalApiAnswer): unknown {
  if (!answer.ok) throw new CommandError('not-running', answer.message);
  return answer.value;
}

export async function askStatus(socket: string): Promise<DaemonStatus> {
  return answerOf(await askDaemon(socket, 'status')) as DaemonStatus;
}

/** Shows the status as `pick` and `format` have it, once or again and again. */
export function showStatus<Part>(
  view: View,
  pick: (status: DaemonStatus) => Part,
  format: (part: Part, nowUnixMs: number) => string,
): Promise<void> {
  return show(view, async () => pick(await askStatus(view.socket)), format);
}

/** Shows what is asked for, once or again and again. */
export async function show<Part>(
  view: View,
  ask: () => Promise<Part>,
  format: (part: Part, nowUnixMs: number) => string,
): Promise<void> {
  for (;;) {
    const part = await ask();
    const clear = view.watch && !view.json ? CLEAR_SCREEN : '';
    const text = view.json ? JSON.stringify(part) : format(part, Date.now());
    view.write(`${clear}${text}\n`);
    if (!view.watch) return;
    await nextLook();
  }
}

export function nextLook(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, WATCH_INTERVAL_MS));
}
