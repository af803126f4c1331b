import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { DomainName } from '../../core/dns/name.ts';
import type { SocketAddress } from '../../core/net/socket-address.ts';
import { whyNoLab } from '../lab/namespaces.ts';
import type { Step } from './dns-router.ts';
import { DnsScene, UPSTREAM } from './dns-scene.ts';

const SERVER = '127.0.0.1:5353' as SocketAddress;
const LISTEN = { port: 5353, interfaces: [], addresses: [SERVER] };
const zones = (...names: string[]) => names as DomainName[];
const BOTH = {
  type: 'dnsmasq',
  zones: zones('corp.example', 'v4.example'),
  server: SERVER,
} as const;
const STEPS: readonly Step[] = [
  { intercept: BOTH },
  { listen: LISTEN, intercept: BOTH },
  { intercept: BOTH },
  { intercept: { ...BOTH, zones: zones('corp.example') } },
  { intercept: { type: 'off' } },
  { intercept: BOTH },
];

const IPV4 = /^(100\.96\.0\.\d+ ?){4}$/;
const IPV6 = /^(fd12:3456:789a:8000::[\da-f]+ ?){4}$/;

await t.test('dnsmasq asks us for our zones', { skip: whyNoLab() }, async (t) => {
  const scene = await DnsScene.create('dns-dnsmasq');
  t.teardown(() => scene.destroy());
  await scene.startDnsmasq();
  const ask = (...words: string[]) => scene.dig('client', '@192.168.1.1', ...words);
  const restarts = () =>
    readFileSync(join(scene.directory, 'restarts'), 'utf8').split('\n').length - 1;
  const file = join(scene.confDir, 'culvert.conf');

  await t.test('nothing is changed while nobody answers', async (t) => {
    t.match(await scene.run(STEPS), '"why":"no-answer"');
    t.notOk(existsSync(file));
    t.equal(restarts(), 1);
  });

  await t.test('names of resources come from us, all others from their servers', async (t) => {
    t.equal(await scene.step(1), '{"unheard":[]}');
    t.match(await ask('a.corp.example'), IPV4);
    t.match(await ask('a.corp.example', 'AAAA'), IPV6, 'ULAs in spite of rebind protection');
    t.match(await ask('a.corp.example', '+tcp'), IPV4, 'over TCP');
    t.match(await ask('A.cOrP.ExAmPlE', 'AAAA', '+tcp'), IPV6, 'in any case');
    t.equal(await ask('ordinary.example'), UPSTREAM);
    t.equal(await ask('acorp.example'), UPSTREAM);
    t.equal(restarts(), 2);
  });

  await t.test('it is left alone when nothing has changed', async (t) => {
    t.equal(await scene.step(2), '{}');
    t.equal(restarts(), 2);
  });

  await t.test('a query for one type never breaks another', async (t) => {
    const ofNothing = ['HTTPS', 'SVCB', 'MX', 'NS', 'CAA', 'SOA', 'TYPE65280', 'DS'];
    for (const [i, type] of ofNothing.entries()) {
      const name = `n${i}.corp.example`;
      for (let round = 0; round < 2; round++) await noData(t, scene, name, type);
      t.match(await ask(name), IPV4, `A after ${type}`);
      t.match(await ask(name, 'AAAA'), IPV6, `AAAA after ${type}`);
      await noData(t, scene, name, type);
      t.match(await ask(name), IPV4, `A after A and ${type}`);
    }
    for (let round = 0; round < 2; round++) {
      await noData(t, scene, 'b.v4.example', 'AAAA');
      t.match(await ask('b.v4.example'), IPV4, 'A of what has no AAAA');
    }
  });

  await t.test('our names were never asked of others', async (t) => {
    const queries = (name: RegExp) => scene.upstreamLog.filter((line) => name.test(line));
    t.ok(queries(/query\[A\] ordinary\.example/).length > 0, 'others were');
    const leaked = queries(/query.*(\.corp|\.v4)\.example/i);
    t.strictSame(leaked, []);
  });

  await t.test('a zone that is gone is asked of others again', async (t) => {
    t.equal(await scene.step(3), '{}');
    t.match(await ask('a.corp.example'), IPV4);
    t.equal(await ask('a.v4.example'), UPSTREAM);
  });

  await t.test('switched off, all is as before', async (t) => {
    t.equal(await scene.step(4), '{}');
    t.notOk(existsSync(file));
    t.equal(await ask('a.corp.example'), UPSTREAM);
  });

  await t.test('after SIGKILL amid queries ordinary names are answered within 2 s', async (t) => {
    t.equal(await scene.step(5), '{}');
    t.match(await ask('a.corp.example'), IPV4);
    const amid = Array.from({ length: 20 }, (_, i) => ask(`n${i}.corp.example`));
    await scene.kill();
    const began = performance.now();
    t.equal(await ask('another.example'), UPSTREAM);
    const took = performance.now() - began;
    t.ok(took < 2_000, `${Math.round(took)} ms`);
    await Promise.all(amid);
    for (let i = 0; i < 20; i++) t.equal(await ask(`o${i}.example`), UPSTREAM);
  });

  await t.test('what a crash left behind is removed by whatever is wanted next', async (t) => {
    t.ok(existsSync(file));
    t.equal(await scene.run([{ intercept: { type: 'off' } }, STEPS[1]!]), '{}');
    t.notOk(existsSync(file));
    t.equal(await ask('a.corp.example'), UPSTREAM);
  });

  await t.test('a stop leaves nothing behind', async (t) => {
    t.equal(await scene.step(1), '{"unheard":[]}');
    t.match(await ask('a.corp.example'), IPV4);
    await scene.stop();
    t.notOk(existsSync(file));
    t.equal(await ask('a.corp.example'), UPSTREAM);
  });
});

/** NOERROR without an answer: NXDOMAIN would be taken to be true of all types. */
async function noData(t: Test, scene: DnsScene, name: string, type: string): Promise<void> {
  const said = await scene.dig('client', '@192.168.1.1', '+noshort', name, type);
  t.match(said, /status: NOERROR.* ANSWER: 0,/, `${type} of ${name}`);
}
