import t from 'tap';
import { whyNoInternet } from '../lab/internet.ts';
import { OutageClock } from '../lab/outage.ts';
import { deviceOf, PathSites } from '../lab/path-sites.ts';

const skip = whyNoInternet();

await t.test('a lost path is replaced in time', { skip }, async (t) => {
  const sites = await PathSites.create(t, 'path-rec', {
    nats: { a: 'portRestricted', b: 'portRestricted' },
  });
  const { internet } = sites;
  await sites.start();
  await sites.meet(30_000);
  await sites.usesPath(/^direct/, 10_000);
  const clock = await OutageClock.start(internet.lab, 'host-a', internet.lanOf('b').host);

  for (const [what, limitMs, disturb] of [
    ['the direct one, beside a warm relay', 3000, () => internet.blockDirect()],
    ['a public address of a NAT', 5000, () => internet.changeWan('a')],
    [
      'a WAN, and there is another',
      5000,
      async () => {
        await internet.loseUplink('a');
        await internet.gainUplink('a');
      },
    ],
  ] as const) {
    await t.test(what, async (t) => {
      const outage = await clock.during(disturb, 60_000);
      t.comment(`${outage.toFixed(0)} ms, then ${await sites.pathOf('a')}`);
      t.ok(outage < limitMs, `${outage.toFixed(0)} ms`);
    });
  }

  await t.test('and the direct one is taken again when it is free', async () => {
    await internet.unblockDirect();
    await sites.usesPath(/^direct/, 90_000);
  });
  await clock.end();
});

await t.test('two sites meet again without a broker', { skip }, async (t) => {
  const sites = await PathSites.create(t, 'path-nob', {
    nats: { a: 'portRestricted', b: 'fullCone' },
  });
  await sites.start();
  await sites.meet(30_000);
  await sites.usesPath(/^direct/, 10_000);
  await sites.broker.kill();
  for (const { daemon } of Object.values(sites.devices)) await daemon.stop();
  await Promise.all(Object.values(sites.devices).map((device) => device.start()));
  const ms = await sites.meet(30_000);
  t.comment(`${ms.toFixed(0)} ms, ${deviceOf('a')} by ${await sites.pathOf('a')}`);
});
