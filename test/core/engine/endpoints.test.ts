import t from 'tap';
import type { Endpoint } from '../../../core/config/endpoint.ts';
import { Endpoints } from '../../../core/engine/endpoints.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { address } from '../../sim/site.ts';

const NOW = instantAt(0);
const HOME: Endpoint = { host: 'home.example', port: 51820 };
const OFFICE: Endpoint = { host: 'office.example', port: 51821 };
const V6 = address('2001:db8::1');
const V4 = address('192.0.2.1');

await t.test('an address is one at once, a name is asked for', async (t) => {
  const endpoints = new Endpoints();
  t.equal(endpoints.set('b', { host: '192.0.2.9', port: 9 }), '192.0.2.9:9');
  t.equal(endpoints.pollQuestion(), undefined);
  t.equal(endpoints.set('b', HOME), undefined);
  t.same(endpoints.pollQuestion(), { peer: 'b', host: 'home.example' });
  t.equal(endpoints.handleAnswer(answer(HOME, [V4]), NOW), '192.0.2.1:51820');
});

await t.test('a late answer for an older name is not taken for the newer one', async (t) => {
  const endpoints = new Endpoints();
  endpoints.set('b', HOME);
  endpoints.set('b', OFFICE);
  t.equal(endpoints.handleAnswer(answer(HOME, [V6]), NOW), undefined);
  t.equal(endpoints.handleAnswer(answer(HOME, []), NOW), undefined, 'nor is a failure');
  t.equal(endpoints.pollTimeout(), undefined);
  t.equal(endpoints.handleAnswer(answer(OFFICE, [V4]), NOW), '192.0.2.1:51821');
  t.equal(endpoints.handleAnswer(answer(OFFICE, [V6]), NOW), undefined, 'one answer is enough');
  endpoints.set('b', { host: '192.0.2.9', port: 9 });
  t.equal(endpoints.handleAnswer(answer(OFFICE, [V4]), NOW), undefined);
});

await t.test(
  'a silent peer is sought at each address, then its name asked for again',
  async (t) => {
    const endpoints = asked();
    t.equal(endpoints.handleAnswer(answer(HOME, [V6, V4]), NOW), '[2001:db8::1]:51820');
    t.equal(endpoints.handleSilence('b'), '192.0.2.1:51820');
    t.equal(endpoints.pollQuestion(), undefined);
    t.equal(endpoints.handleSilence('b'), undefined);
    t.match(endpoints.pollQuestion(), { host: 'home.example' });
    t.equal(endpoints.handleSilence('b'), undefined);
    t.equal(endpoints.pollQuestion(), undefined, 'once');
    t.equal(endpoints.handleAnswer(answer(HOME, [V6, V4]), NOW), '[2001:db8::1]:51820');
  },
);

await t.test('where a peer answered, silence means that its name moved', async (t) => {
  const endpoints = asked();
  endpoints.handleAnswer(answer(HOME, [V6, V4]), NOW);
  endpoints.handleContact('b');
  t.equal(endpoints.handleSilence('b'), undefined);
  t.match(endpoints.pollQuestion(), { host: 'home.example' });
});

await t.test('a name that does not resolve is asked for every ten seconds', async (t) => {
  const endpoints = asked();
  for (let now = 0; now < 30_000; now += 10_000) {
    endpoints.handleAnswer(answer(HOME, []), instantAt(now));
    t.equal(endpoints.pollTimeout()?.at, now + 10_000);
    endpoints.handleTimeout(instantAt(now + 9_999));
    t.equal(endpoints.pollQuestion(), undefined);
    endpoints.handleTimeout(instantAt(now + 10_000));
    t.match(endpoints.pollQuestion(), { host: 'home.example' });
  }
  endpoints.remove('b');
  t.equal(endpoints.handleAnswer(answer(HOME, [V4]), NOW), undefined, 'until it is removed');
});

function asked(): Endpoints {
  const endpoints = new Endpoints();
  endpoints.set('b', HOME);
  endpoints.pollQuestion();
  return endpoints;
}

function answer({ host }: Endpoint, addresses: readonly (typeof V4)[]) {
  return { peer: 'b', host, addresses };
}
