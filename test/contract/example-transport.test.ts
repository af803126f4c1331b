import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { address, Loopback } from '../plugins/transport-stream/loopback.ts';
import { UnixStreams } from './example-transport.ts';
import { streamTransportContract, type StreamsWorld } from './transport.ts';

await t.test('the example of a transport keeps the contract', async (t) => {
  await streamTransportContract(t, async (t): Promise<StreamsWorld> => {
    const directory = mkdtempSync(join(tmpdir(), 'culvert-unix-'));
    t.teardown(() => rmSync(directory, { recursive: true, force: true }));
    const loopback = new Loopback(t);
    let lastPort = 0;
    const made: UnixStreams[] = [];
    return {
      protocols: ['tcp'],
      create() {
        const streams = new UnixStreams(directory);
        made.push(streams);
        return streams;
      },
      stop: (streams) => made.find((other) => other === streams)?.stop(),
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
