import t, { type Test } from 'tap';
import type { SocketAddress } from '../../core/net/socket-address.ts';
import { whyNoLab } from '../lab/namespaces.ts';
import { DnsScene, OURS, UPSTREAM } from './dns-scene.ts';

const PORT = 5353;
const LISTEN = { port: PORT, interfaces: ['br-lan'], addresses: [] };
/** Not at the first IPv4 address of the interface. */
const IN_PART = {
  port: PORT,
  interfaces: [],
  addresses: ['10.20.0.1:5353', '[fd00:1::1]:5353'] as SocketAddress[],
};
const NOWHERE = { port: PORT, interfaces: [], addresses: [] };
const REDIRECT = { type: 'redirect', interfaces: ['br-lan'], port: PORT } as const;

/** Whom a client may ask, and from where. */
const WAYS: readonly (readonly [who: string, ...words: string[]])[] = [
  ['a public resolver', '@8.8.8.8'],
  ['a public resolver, TCP', '@8.8.8.8', '+tcp'],
  ['a public resolver, IPv6', '@2001:4860:4860::8888'],
  ['a public resolver, IPv6, TCP', '@2001:4860:4860::8888', '+tcp'],
  ['the router', '@192.168.1.1'],
  ['the router, TCP', '@192.168.1.1', '+tcp'],
  ['the router, IPv6', '@fd00:1::1'],
  ['the router, link-local', '@fe80::1%to-router'],
  ['the router, from the second subnet', '@10.20.0.1', '-b', '10.20.0.50'],
  ['the router in the other subnet', '@192.168.1.1', '-b', '10.20.0.50'],
  ['a public resolver, from the second subnet', '@8.8.8.8', '-b', '10.20.0.50'],
  ['the same, TCP', '@8.8.8.8', '-b', '10.20.0.50', '+tcp'],
];

await t.test('the LAN is redirected to us', { skip: whyNoLab() }, async (t) => {
  const scene = await DnsScene.create('dns-redirect');
  t.teardown(() => scene.destroy());
  await scene.startDnsmasq();

  const allAsk = async (t: Test, expected: string) => {
    for (const [who, ...words] of WAYS) {
      t.equal(await scene.dig('client', ...words, 'ordinary.example'), expected, who);
    }
  };

  await t.test('before, everybody gets who was asked', (t) => allAsk(t, UPSTREAM));

  /** One source port, as of a resolver that keeps its socket: the kernel knows it. */
  const sameSocket = () =>
    scene.dig('client', '@8.8.8.8', '-b', '192.168.1.50#40053', 'ordinary.example');
  t.equal(await sameSocket(), UPSTREAM);

  await t.test('nothing is changed while nobody answers', async (t) => {
    const result = await scene.run([
      { intercept: REDIRECT },
      { listen: LISTEN, intercept: REDIRECT },
      { intercept: { type: 'off' } },
      { listen: IN_PART, intercept: REDIRECT },
      { listen: NOWHERE, intercept: REDIRECT },
      { listen: LISTEN, intercept: REDIRECT },
    ]);
    t.match(result, '"why":"no-answer","detail":"nobody answers at 5353 on: br-lan"');
    t.equal(await scene.dig('client', '@8.8.8.8', 'ordinary.example'), UPSTREAM);
  });

  await t.test('with the listener, everybody gets us', async (t) => {
    t.equal(await scene.step(1), '{"unheard":[]}');
    t.equal(await sameSocket(), OURS, 'also who has asked another one before');
    await allAsk(t, OURS);
    const proxy = await scene.dig('client', '@8.8.8.8', 'crm.corp.example');
    t.match(proxy, /^100\.96\.0\.\d+ /, 'names of resources are proxies');
  });

  await t.test('queries of the router itself go where they went', async (t) => {
    for (const server of ['@10.9.0.2', '@8.8.8.8', '@127.0.0.1', '@2001:4860:4860::8888']) {
      t.equal(await scene.dig('router', server, 'ordinary.example'), UPSTREAM, server);
    }
  });

  await t.test('other programs cannot take it away by flushing their rules', async (t) => {
    await scene.lab.exec('router', ['nft', 'flush', 'ruleset']);
    t.equal(await scene.dig('client', '@8.8.8.8', 'ordinary.example'), OURS);
  });

  await t.test('switched off, everybody gets who was asked', async (t) => {
    t.equal(await scene.step(2), '{}');
    t.equal(await sameSocket(), UPSTREAM, 'also who has asked us before');
    await allAsk(t, UPSTREAM);
  });

  await t.test('where nobody answers any more, everybody gets who was asked', async (t) => {
    t.equal(await scene.step(3), '{"unheard":[]}');
    const ask = (server: string) => scene.dig('client', server, 'ordinary.example');
    t.equal(await ask('@8.8.8.8'), UPSTREAM, 'the kernel would redirect to 192.168.1.1');
    t.equal(await ask('@2001:4860:4860::8888'), OURS);
    t.match(await scene.step(4), '"why":"no-answer"');
    await allAsk(t, UPSTREAM);
  });

  await t.test('after SIGKILL amid queries the next one is answered within 2 s', async (t) => {
    t.equal(await scene.step(5), '{"unheard":[]}');
    t.equal(await scene.dig('client', '@8.8.8.8', 'ordinary.example'), OURS);
    const amid = Array.from({ length: 8 }, async (_, i) => {
      const answers: string[] = [];
      for (let n = 0; n < 20; n++) {
        answers.push(await scene.dig('client', '@8.8.8.8', `n${n}.of${i}.example`));
      }
      return answers;
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    await scene.kill();
    const began = performance.now();
    t.equal(await scene.dig('client', '@8.8.8.8', 'ordinary.example'), UPSTREAM);
    t.equal(
      await scene.dig('client', '@2001:4860:4860::8888', '+tcp', 'ordinary.example'),
      UPSTREAM,
    );
    const took = performance.now() - began;
    t.ok(took < 2_000, `${Math.round(took)} ms`);
    for (const answers of await Promise.all(amid)) t.equal(answers.at(-1), UPSTREAM);
    await allAsk(t, UPSTREAM);
  });

  await t.test('a stop leaves nothing behind', async (t) => {
    await scene.run([{ listen: LISTEN, intercept: REDIRECT }]);
    t.equal(await scene.dig('client', '@8.8.8.8', 'ordinary.example'), OURS);
    await scene.stop();
    await allAsk(t, UPSTREAM);
    const { stdout } = await scene.lab.exec('router', ['nft', 'list', 'tables']);
    t.equal(stdout, '');
  });
});
