import t from 'tap';
import { createResolve } from '../../openwrt/resolve.ts';

function scene() {
  const lookUps: { readonly host: string; answer(addresses: readonly string[]): void }[] = [];
  const resolve = createResolve((host, answer) => void lookUps.push({ host, answer }));
  const answers: string[] = [];
  const ask = (host: string): void => {
    resolve(host, (addresses) => void answers.push(`${host} ${addresses.join()}`));
  };
  return { lookUps, answers, ask, hosts: () => lookUps.map(({ host }) => host) };
}

await t.test('names are looked up one after the other, in the order of asking', async (t) => {
  const { lookUps, answers, ask, hosts } = scene();
  for (const host of ['silent', 'relay', 'peer']) ask(host);
  t.same(hosts(), ['silent'], 'the others wait: a thread is left for the broker');
  lookUps[0]?.answer([]);
  t.same(hosts(), ['silent', 'relay']);
  lookUps[1]?.answer(['192.0.2.1']);
  lookUps[2]?.answer(['192.0.2.2', '2001:db8::2']);
  t.same(answers, ['silent ', 'relay 192.0.2.1', 'peer 192.0.2.2,2001:db8::2']);
});

await t.test('a name that is asked for while it is looked up is looked up once', async (t) => {
  const { lookUps, answers, ask, hosts } = scene();
  for (const host of ['a', 'b', 'a', 'b']) ask(host);
  lookUps[0]?.answer(['192.0.2.1']);
  lookUps[1]?.answer(['192.0.2.2']);
  t.same(hosts(), ['a', 'b']);
  t.same(answers, ['a 192.0.2.1', 'a 192.0.2.1', 'b 192.0.2.2', 'b 192.0.2.2']);
  ask('a');
  t.same(hosts(), ['a', 'b', 'a'], 'an answer is not kept');
});

await t.test('more questions than can wait are answered with nothing, later', async (t) => {
  const { answers, ask } = scene();
  for (let i = 0; i < 4096; i++) ask(`host-${i}`);
  ask('one more');
  t.same(answers, []);
  await new Promise((resolve) => setImmediate(resolve));
  t.same(answers, ['one more ']);
});
