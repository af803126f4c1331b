import { setTimeout as wait } from 'node:timers/promises';
import type { Lab, Running } from './namespaces.ts';

/** Pings twenty times a second, which show for how long nothing came through. */
export class OutageClock {
  readonly #running: Running;

  /** Returns when the first answer has come. */
  static async start(lab: Lab, from: string, to: string, timeoutMs = 30_000): Promise<OutageClock> {
    const running = lab.spawn(from, ['ping', '-n', '-D', '-i', '0.05', to]);
    await running.waitFor(ANSWER, timeoutMs);
    return new OutageClock(running);
  }

  private constructor(running: Running) {
    this.#running = running;
  }

  /**
   * Does something and waits until answers come steadily again. Returns the longest time without an
   * answer since it began, in milliseconds.
   */
  async during(disturb: () => Promise<void>, timeoutMs: number): Promise<number> {
    const from = Date.now();
    await disturb();
    const done = Date.now();
    const deadline = performance.now() + timeoutMs;
    while (!isSteady(this.#answers(), done)) {
      if (performance.now() > deadline) throw new Error(`no answers again in ${timeoutMs} ms`);
      await wait(50);
    }
    return longestGap(this.#answers(), from);
  }

  async end(): Promise<void> {
    await this.#running.stop();
  }

  /** When answers came, in milliseconds since 1970. */
  #answers(): readonly number[] {
    return this.#running.lines.flatMap((line) => {
      const time = ANSWER.exec(line)?.[1];
      return time === undefined ? [] : [Number(time) * 1000];
    });
  }
}

const ANSWER = /^\[(\d+\.\d+)\] .*icmp_seq=\d+ .*time=/;

/** So many answers within such a time show that a path works, and not that one ping slipped through. */
const STEADY_ANSWERS = 15;
const STEADY_MS = 1500;

function isSteady(answers: readonly number[], since: number): boolean {
  const earliest = answers.at(-STEADY_ANSWERS) ?? 0;
  return earliest > Math.max(since, Date.now() - STEADY_MS);
}

function longestGap(answers: readonly number[], since: number): number {
  const first = Math.max(
    0,
    answers.findLastIndex((time) => time <= since),
  );
  const times = answers.slice(first);
  return Math.max(0, ...times.slice(1).map((time, index) => time - (times[index] ?? time)));
}
