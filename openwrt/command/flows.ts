import type { FlowRecord } from '../../core/engine/flow-records.ts';
import { MOST_TOLD, type FlowsAnswer } from '../daemon-methods.ts';
import { answerOf, askDaemon, nextLook } from './ask-status.ts';

/**
 * `culvert flows`: that flows of resources began and ended, as JSON, one record a line. Prints what is kept;
 * with `follow` it goes on until it is interrupted or the daemon ends. What gave way before it was read is
 * told by a record of its own: `{"event":"gap"}` with the number of those that are missing.
 */
export async function flows(options: {
  readonly socket: string;
  readonly follow: boolean;
  write(text: string): void;
}): Promise<void> {
  const { socket, follow } = options;
  const write = (record: Line): void => options.write(line(record));
  let run: number | undefined;
  let after = 0;
  for (;;) {
    const answer = await askFlows(socket, after);
    if (run !== undefined && run !== answer.run) {
      write({ time: Date.now(), event: 'restart' });
      run = answer.run;
      after = 0;
      continue;
    }
    const { records } = answer;
    const [first] = records;
    const missing = first === undefined || run === undefined ? 0 : first.sequence - after - 1;
    if (first !== undefined && missing > 0) write({ time: first.time, event: 'gap', missing });
    records.forEach(write);
    run = answer.run;
    after = records.at(-1)?.sequence ?? after;
    if (records.length === MOST_TOLD) continue;
    if (!follow) return;
    await nextLook();
  }
}

async function askFlows(socket: string, after: number): Promise<FlowsAnswer> {
  return answerOf(await askDaemon(socket, 'flows', { after, most: MOST_TOLD })) as FlowsAnswer;
}

type Line =
  | FlowRecord
  /** Records gave way before they were read. */
  | { readonly time: number; readonly event: 'gap'; readonly missing: number }
  /** The daemon began anew: sequences count from 1 again. */
  | { readonly time: number; readonly event: 'restart' };

/** Times as RFC 3339 has them. */
function line(record: Line): string {
  const text = JSON.stringify(record, (key, value: unknown) =>
    TIMES.includes(key) && typeof value === 'number' ? new Date(value).toISOString() : value,
  );
  return `${text}\n`;
}

const TIMES: readonly string[] = [
  'time',
  'openedAt',
  'lastPacketAt',
] satisfies readonly (keyof FlowRecord)[];
