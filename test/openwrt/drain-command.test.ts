import t from 'tap';
import { drain } from '../../openwrt/command/drain.ts';
import { serveDaemon } from './scene.ts';

await t.test('it tells who is waited for, and that the daemon went', async (t) => {
  const looks = [
    { phase: 'draining', drain: { peers: ['branch', 'depot'], endsWithinMs: 299_000 } },
    { phase: 'draining', drain: { peers: [], endsWithinMs: 298_000 } },
    { phase: 'stopping' },
  ];
  const calls: unknown[] = [];
  const { socket } = await serveDaemon(t, {
    drain: (params) => void calls.push(params),
    status: () => looks.shift(),
  });
  t.same(await written((write) => drain({ socket, cancel: false, write })), [
    'waiting for branch, depot (at most 5 min)\n',
    'no traffic is left\n',
    'drained\n',
  ]);
  t.same(calls, [{ cancel: false }]);
});

await t.test('a daemon that is gone has drained', async (t) => {
  const drained = { phase: 'draining', drain: { peers: ['b'], endsWithinMs: 1 } };
  const { socket, stop } = await serveDaemon(t, { drain: () => null, status: () => drained });
  const lines = await written((write) =>
    drain({
      socket,
      cancel: false,
      write: (text) => {
        write(text);
        void stop();
      },
    }),
  );
  t.equal(lines.at(-1), 'drained\n');
});

await t.test('a drain that somebody cancels is a failure of the command', async (t) => {
  const { socket } = await serveDaemon(t, {
    drain: () => null,
    status: () => ({ phase: 'running' }),
  });
  const draining = drain({ socket, cancel: false, write: () => undefined });
  await t.rejects(draining, { exit: 'failure', message: /cancelled/ });
});

await t.test('--cancel has the daemon stay', async (t) => {
  const calls: unknown[] = [];
  const { socket } = await serveDaemon(t, {
    drain: (params) => {
      calls.push(params);
      return 'running';
    },
  });
  const lines = await written((write) => drain({ socket, cancel: true, write }));
  t.same([calls, lines], [[{ cancel: true }], ['stays: running\n']]);
});

await t.test('without a daemon there is nothing to drain', async (t) => {
  const { socket, stop } = await serveDaemon(t, {});
  await stop();
  const draining = drain({ socket, cancel: false, write: () => undefined });
  await t.rejects(draining, { message: /is not running/ });
});

async function written(
  command: (write: (text: string) => void) => Promise<void>,
): Promise<readonly string[]> {
  const lines: string[] = [];
  await command((text) => void lines.push(text));
  return lines;
}
