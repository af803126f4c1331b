import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import type { Assertions } from './wireguard-device.ts';

/** Stands in for tap where there is only node: one line a test, and `failed` counts. */
export class PlainAssertions {
  failed = 0;

  async test(title: string, run: (t: Assertions) => void | Promise<void>): Promise<void> {
    const start = performance.now();
    try {
      await run(this.asTap);
      console.log(`ok - ${title} # ${(performance.now() - start).toFixed(0)} ms`);
    } catch (error) {
      this.failed++;
      console.log(`not ok - ${title}\n${error instanceof Error ? error.stack : String(error)}`);
    }
  }

  /** Of tap's types only what the suite uses is there. */
  get asTap(): Assertions {
    return this as unknown as Assertions;
  }

  ok(value: unknown, message?: string): void {
    assert.ok(value, message);
  }

  equal(found: unknown, wanted: unknown, message?: string): void {
    assert.equal(found, wanted, message);
  }

  strictSame(found: unknown, wanted: unknown, message?: string): void {
    assert.deepEqual(found, wanted, message);
  }

  match(found: unknown, pattern: unknown): void {
    assert.ok(matches(found, pattern), `${text(found)}\ndoes not match\n${text(pattern)}`);
  }
}

/** Whether what the pattern has is there; the rest is free. */
function matches(found: unknown, pattern: unknown): boolean {
  if (typeof pattern !== 'object' || pattern === null) return isDeepStrictEqual(found, pattern);
  if (typeof found !== 'object' || found === null) return false;
  return Object.entries(pattern).every(([name, value]) =>
    matches((found as Record<string, unknown>)[name], value),
  );
}

function text(value: unknown): string {
  return JSON.stringify(value, undefined, 1);
}
