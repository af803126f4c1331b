import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { nullLog } from '../../core/sansio/log.ts';
import { createLocalApi, type LocalApiMethod } from '../../plugins/local-api/index.ts';

/** A stand-in for the daemon on a socket of its own, for the commands that talk with it. */
export async function serveDaemon(t: Test, methods: Readonly<Record<string, LocalApiMethod>>) {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-command-'));
  const socket = join(directory, 'culvert.sock');
  const server = createLocalApi({ path: socket, methods, log: nullLog });
  t.teardown(async () => {
    await server.stop();
    rmSync(directory, { recursive: true });
  });
  await server.start();
  return { socket, stop: () => server.stop() };
}
