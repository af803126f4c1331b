import t from 'tap';
import { parseConfiguration, type Configuration } from '../../../core/config/configuration.ts';
import type { Target } from '../../../core/engine/application.ts';
import { Attempts } from '../../../core/engine/attempts.ts';
import { instantAt } from '../../../core/sansio/instant.ts';

const NOW = instantAt(0);
const TAKEN = [{ path: 'interface.listenPort', why: 'port-taken' }];
const NO_IPV6 = [{ path: 'address fd00::1/64', why: 'IPv6 is disabled' }];

await t.test('the running configuration asserted again is no news', async (t) => {
  const attempts = new Attempts();
  const running = local();
  t.equal(attempts.end(running, true, [], NOW), true);
  t.equal(attempts.end(running, true, [], NOW), false);
  t.equal(attempts.end(running, true, NO_IPV6, NOW), true, 'but that it lost an address is');
  t.equal(attempts.lastError, 'address fd00::1/64: IPv6 is disabled');
  t.equal(attempts.end(running, true, NO_IPV6, NOW), false);
  t.equal(attempts.end(running, true, [], NOW), true, 'and that it got it back');
  t.equal(attempts.lastError, undefined);
});

await t.test('why the newest one was refused stays until a newer one runs', async (t) => {
  const attempts = new Attempts();
  const running = local();
  attempts.end(running, true, [], NOW);
  attempts.refuse('culvert.json is refused');
  attempts.end(running, true, [], NOW);
  t.equal(attempts.lastError, 'culvert.json is refused');
  attempts.end(local(), false, TAKEN, NOW);
  attempts.end(running, true, [], NOW);
  t.equal(attempts.lastError, 'interface.listenPort: port-taken');
  attempts.end(local(), true, [], NOW);
  t.equal(attempts.lastError, undefined);
});

await t.test('a configuration of the fleet that failed has its turn again, for ever', async (t) => {
  const attempts = new Attempts();
  const failing = fromFleet(7);
  t.equal(attempts.end(failing, false, TAKEN, NOW), true);
  for (let round = 0; round < 3; round++) {
    const { at } = attempts.pollTimeout() ?? { at: NOW };
    t.equal(attempts.handleTimeout(instantAt(at - 1)), undefined);
    t.equal(attempts.handleTimeout(at), failing);
    t.equal(attempts.handleTimeout(at), undefined, 'once');
    t.equal(attempts.end(failing, false, TAKEN, at), false, 'failing in the same way is no news');
  }
  t.equal(attempts.end(failing, true, [], NOW), true);
  t.equal(attempts.pollTimeout(), undefined, 'until it runs');
});

await t.test('a newer configuration, and none from a file, is tried again', async (t) => {
  const attempts = new Attempts();
  attempts.end(fromFleet(7), false, TAKEN, NOW);
  attempts.begin();
  t.equal(attempts.pollTimeout(), undefined);
  attempts.end(local(), false, TAKEN, NOW);
  t.equal(attempts.pollTimeout(), undefined);
});

function local(): Target {
  return { configuration: configuration(), version: undefined };
}

function fromFleet(version: number): Target {
  return { configuration: configuration(), version };
}

function configuration(): Configuration {
  const json = { schema: 1, interface: { addresses: ['100.64.0.1/32'] }, peers: [] };
  const parsed = parseConfiguration(json);
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.errors));
  return parsed.value;
}
