import t from 'tap';
import { Driver, type Effects } from '../../../core/plugin/driver.ts';
import { FlightRecorder, MOST_RECORDED_BYTES } from '../../../core/plugin/flight-recorder.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { replayCalls } from '../../sim/recording.ts';
import { createEngine } from '../../sim/site.ts';
import { START_UNIX_MS, TwoSites } from '../../sim/two-sites.ts';
import { VirtualTime } from '../../sim/virtual-time.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

await t.test('a run of the engine, packets included, replays to the same outputs', async (t) => {
  const { calls, seedOfA } = await recordedRun();
  t.ok(calls.length > 500, `${calls.length} calls`);
  t.equal(
    replayCalls(createEngine(seedOfA, new VirtualTime(START_UNIX_MS).clock()), calls),
    undefined,
  );
});

await t.test('the replay of a run under another seed differs', async (t) => {
  const { calls, seedOfA } = await recordedRun();
  const other = createEngine(seedOfA + 1, new VirtualTime(START_UNIX_MS).clock());
  t.not(replayCalls(other, calls), undefined);
});

await t.test('the flight recorder keeps the newest inputs in order', async (t) => {
  const recorder = new FlightRecorder<number>(3);
  for (const input of [1, 2]) recorder.record(input, instantAt(input));
  t.same(recorder.inputs(), [recorded(1), recorded(2)]);
  t.ok(recorder.complete);
  for (const input of [3, 4, 5]) recorder.record(input, instantAt(input));
  t.same(recorder.inputs(), [recorded(3), recorded(4), recorded(5)]);
  t.notOk(recorder.complete);
});

await t.test('large messages push older inputs out of the flight recorder', async (t) => {
  const recorder = new FlightRecorder<unknown>(1024);
  const message = (length: number) => ({ event: { payload: new Uint8Array(length) } });
  for (let i = 0; i < 100; i++) recorder.record(message(2 ** 20), instantAt(i));
  t.equal(recorder.inputs().length, MOST_RECORDED_BYTES / 2 ** 20);
  t.equal(recorder.inputs().at(-1)?.now, 99);
  t.notOk(recorder.complete);
  recorder.record(message(MOST_RECORDED_BYTES + 1), instantAt(100));
  t.same(
    recorder.inputs().map(({ now }) => now),
    [100],
    'the newest stays',
  );
  for (let i = 101; i < 111; i++) recorder.record(message(1), instantAt(i));
  t.equal(recorder.inputs().length, 10);
});

await t.test('the driver records what it hands in, results of commands included', async (t) => {
  const { driver, recorder } = countingDriver();
  driver.input(1);
  t.same(
    recorder.inputs().map(({ input }) => input),
    [1, 10],
  );
});

await t.test('the driver yields to others when the agent never comes to rest', async (t) => {
  const { driver, clockCalls, agent } = countingDriver();
  agent.isRestless = true;
  driver.input(1);
  t.same(clockCalls, ['soon']);
});

async function recordedRun() {
  const sites = new TwoSites(SEED);
  sites.loss = 0.1;
  for (let number = 0; number < 200; number++) {
    sites.send('a', number);
    if (number % 3 === 0) sites.send('b', number);
    sites.advance(1000);
  }
  return { calls: sites.calls, seedOfA: SEED + 1 };
}

function recorded(input: number) {
  return { now: instantAt(input), input };
}

/** A driver around an agent that gives one command for each input. */
function countingDriver() {
  const clockCalls: string[] = [];
  const commands: number[] = [];
  const agent = {
    isRestless: false,
    handleInput: (input: number) => void (input < 10 && commands.push(input)),
    handleTimeout: () => undefined,
    pollTransmit: () => undefined,
    pollEvent: () => undefined,
    pollCommand: () => commands.shift(),
    pollTimeout: () => (agent.isRestless ? { at: instantAt(0), reason: 'always' } : undefined),
  };
  const effects: Effects<number, string, never, number> = {
    transmit: () => undefined,
    event: () => undefined,
    execute: (command) => command * 10,
    flushPackets: () => undefined,
  };
  const recorder = new FlightRecorder<number>(8);
  const driver = new Driver<number, string, never, number>({
    agent,
    effects,
    clock: {
      now: () => instantAt(0),
      unixMs: () => 0,
      alarm: () => void clockCalls.push('alarm'),
      cancelAlarm: () => undefined,
      soon: () => void clockCalls.push('soon'),
    },
    recorder,
    log: nullLog,
  });
  return { driver, recorder, clockCalls, agent };
}
