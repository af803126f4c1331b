import t from 'tap';
import { capability } from '../../../core/plugin/capability.ts';
import { Plugins } from '../../../core/plugin/host.ts';
import type { PluginDefinition } from '../../../core/plugin/plugin.ts';
import type { Clock } from '../../../core/plugin/clock.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { instantAt } from '../../../core/sansio/instant.ts';

const clock: Clock = {
  now: () => instantAt(0),
  unixMs: () => 0,
  alarm: () => undefined,
  cancelAlarm: () => undefined,
  soon: () => undefined,
};

const source = capability<string>('source');
const sink = capability<string>('sink');

await t.test('a plugin is made after what it needs and stopped before it', async (t) => {
  const happened: string[] = [];
  const plugins = new Plugins(nullLog, clock);
  plugins.start([needing(happened), providing(happened)]);
  t.equal(plugins.find(sink), 'sink on source');
  await plugins.stop();
  t.same(happened, ['make source', 'make sink', 'stop sink', 'stop source']);
});

await t.test('a skipped plugin takes those who need it along, each with its reason', async (t) => {
  const plugins = new Plugins(nullLog, clock);
  const absent: PluginDefinition<string> = {
    ...providing([]),
    create: () => ({ skip: 'not on this machine' }),
  };
  plugins.start([needing([]), absent]);
  t.same(plugins.skipped, [
    { name: 'provider', why: 'not on this machine' },
    { name: 'consumer', why: "needs 'source'" },
  ]);
  t.equal(plugins.find(sink), undefined);
});

await t.test('plugins that need each other are refused', async (t) => {
  const plugins = new Plugins(nullLog, clock);
  const circular: PluginDefinition<string> = { ...providing([]), needs: [sink] };
  t.throws(() => plugins.start([circular, needing([])]), /need each other/);
});

await t.test('a plugin cannot use what it did not name', async (t) => {
  const plugins = new Plugins(nullLog, clock);
  const sneaky: PluginDefinition<string> = { ...needing([]), needs: [] };
  t.throws(() => plugins.start([providing([]), sneaky]), /without naming it/);
});

await t.test('a plugin that fails to stop does not keep the others', async (t) => {
  const happened: string[] = [];
  const plugins = new Plugins(nullLog, clock);
  const failing: PluginDefinition<string> = {
    ...needing(happened),
    create: () => ({
      api: '',
      stop: () => {
        throw new Error('stuck');
      },
    }),
  };
  plugins.start([providing(happened), failing]);
  await plugins.stop();
  t.same(happened, ['make source', 'stop source']);
});

function providing(happened: string[]): PluginDefinition<string> {
  return {
    name: 'provider',
    provides: source,
    needs: [],
    create: () => {
      happened.push('make source');
      return { api: 'source', stop: () => void happened.push('stop source') };
    },
  };
}

function needing(happened: string[]): PluginDefinition<string> {
  return {
    name: 'consumer',
    provides: sink,
    needs: [source],
    create: (host) => {
      const api = `sink on ${host.use(source)}`;
      happened.push('make sink');
      return { api, stop: () => void happened.push('stop sink') };
    },
  };
}
