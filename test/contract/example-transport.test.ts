import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { Plugin } from '../../core/plugin/plugin.ts';
import type { Streams } from '../../core/plugin/streams.ts';
import { address, Loopback } from '../plugins/transport-stream/loopback.ts';
import { openUnix } from './example-transport.ts';
import { streamTransportContract, type StreamsWorld } from './transport.ts';

await t.test('the example of a transport keeps the contract', async (t) => {
  await streamTransportContract(t, async (t): Promise<StreamsWorld> => {
    const directory = mkdtempSync(join(tmpdir(), 'culvert-unix-'));
    t.teardown(() => rmSync(directory, { recursive: true, force: true }));
    const loopback = new Loopback(t);
    let lastPort = 0;
    const made: Plugin<Streams>[] = [];
    return {
      protocols: ['tcp'],
      create() {
        const plugin = openUnix(directory);
        made.push(plugin);
        return plugin.api;
      },
      stop: (streams) => void made.find(({ api }) => api === streams)?.stop(),
      async freePort() {
        const port = ++lastPort;
        return { port, address: address('127.0.0.1', port) };
      },
      until: (condition) => loopback.until(condition),
      pass: (ms) => loopback.pass(ms),
      // Unix sockets are connected before anybody accepts them.
      listenSilently: async () => undefined,
    };
  });
});

await t.test('the example of a transport has fewer than 100 lines', async (t) => {
  const text = readFileSync(new URL('example-transport.ts', import.meta.url), 'utf8');
  t.ok(text.trimEnd().split('\n').length < 100);
});
