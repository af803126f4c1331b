import { setTimeout as wait } from 'node:timers/promises';
import t from 'tap';
import { whyNoInternet } from '../lab/internet.ts';
import { PathSites } from '../lab/path-sites.ts';

const skip = whyNoInternet();
const MB = 1e6;

await t.test('a download goes on whatever happens to its path', { skip }, async (t) => {
  const sites = await PathSites.create(t, 'path-dl', {
    nats: { a: 'portRestricted', b: 'portRestricted' },
  });
  const { internet, relay } = sites;
  await sites.start();
  await sites.meet(30_000);
  await sites.usesPath(/^direct/, 10_000);
  const download = await sites.download({ bytes: 100 * MB, bytesPerSecond: 8 * MB });

  const steps: readonly (readonly [string, () => Promise<void>])[] = [
    ['the direct path is blocked', () => internet.blockDirect()],
    [
      'the relay is killed, the direct path is free again',
      async () => {
        await internet.unblockDirect();
        await relay.kill();
      },
    ],
    [
      'a WAN address changes, the relay is back',
      async () => {
        await relay.start();
        await internet.changeWan('a');
      },
    ],
    [
      'a machine has no network for 3 s',
      async () => {
        await internet.cut('b');
        await wait(3000);
        await internet.restore('b');
      },
    ],
    [
      '20 % of packets are lost for 3 s',
      async () => {
        await internet.loss('a', 20);
        await wait(3000);
        await internet.loss('a', 0);
      },
    ],
  ];
  await download.reaches(5 * MB, 30_000);
  for (const [what, disturb] of steps) {
    await t.test(what, async (t) => {
      const before = download.bytes;
      await disturb();
      await download.reaches(before + 10 * MB, 60_000);
      t.comment(`${await sites.pathOf('a')} at ${download.bytes} bytes`);
    });
  }
  const { isIntact, bytes, seconds, longestGapMs } = await download.finish(120_000);
  t.equal(bytes, 100 * MB);
  t.ok(isIntact, 'not a byte is wrong');
  t.comment(`${seconds.toFixed(1)} s, longest gap ${longestGapMs.toFixed(0)} ms`);
});
