import type { Status } from '../../core/engine/status.ts';
import type { LocalApiFailure } from '../../plugins/local-api/index.ts';
import { CommandError } from '../exit-code.ts';
import { answerOf, askDaemon, nextLook } from './ask-status.ts';

const MOST_NAMES = 5;

/** How a daemon answers that went, as it was told to; a socket that is being closed resets. */
const GONE: readonly LocalApiFailure[] = ['not-running', 'closed', 'failed'];

/** `culvert drain`: has the daemon go once its peers have done with it, and waits for that. */
export async function drain(options: {
  readonly socket: string;
  /** Has it stay after all. */
  readonly cancel: boolean;
  write(text: string): void;
}): Promise<void> {
  const { socket, cancel } = options;
  const phase = answerOf(await askDaemon(socket, 'drain', { cancel }));
  if (cancel) return options.write(`stays: ${String(phase)}\n`);
  let shown = '';
  for (;;) {
    const answer = await askDaemon(socket, 'status');
    if (!answer.ok && GONE.includes(answer.why)) break;
    const status = answerOf(answer) as Status;
    if (status.phase === 'stopping') break;
    if (status.drain === undefined) throw new CommandError('failure', 'the drain was cancelled');
    const text = formatDrain(status.drain);
    if (text !== shown) options.write(text);
    shown = text;
    await nextLook();
  }
  options.write('drained\n');
}

function formatDrain({ peers, endsWithinMs }: NonNullable<Status['drain']>): string {
  if (peers.length === 0) return 'no traffic is left\n';
  const minutes = Math.ceil(endsWithinMs / 60_000);
  const named = peers.slice(0, MOST_NAMES).join(', ');
  const more = peers.length > MOST_NAMES ? ` and ${peers.length - MOST_NAMES} more` : '';
  return `waiting for ${named}${more} (at most ${minutes} min)\n`;
}
