import t from 'tap';
import { whyNoInternet } from '../lab/internet.ts';
import type { Running } from '../lab/namespaces.ts';
import { deviceOf, PathSites } from '../lab/path-sites.ts';

const skip = whyNoInternet();
const MB = 1e6;

await t.test('a goodbye', { skip }, async (t) => {
  const sites = await PathSites.create(t, 'path-bye', {
    nats: { a: 'portRestricted', b: 'portRestricted' },
  });
  const [{ a, b }, { lab }] = [sites.devices, sites.internet];
  await sites.start();
  await sites.meet(30_000);

  await t.test('is acted on within 200 ms, and its reason is in the log', async (t) => {
    const left = sayingGoodbye(b.running, 'leaving');
    const asked = performance.now();
    a.running.signal('SIGTERM');
    await left;
    const tookMs = performance.now() - asked;
    t.ok(tookMs < 200, `${tookMs.toFixed(0)} ms`);
    t.equal(await a.running.ended, 0);
    t.notMatch(b.running.lines.at(-1) ?? '', 'does not answer', 'and no timeout is told of');
    await a.start();
    await sites.meet(30_000);
  });

  await t.test('before a restart lets a download go on', async (t) => {
    const download = await sites.download({ bytes: 40 * MB, bytesPerSecond: 8 * MB });
    await download.reaches(10 * MB, 30_000);
    const left = sayingGoodbye(a.running, 'restarting');
    b.running.signal('SIGUSR2');
    await left;
    t.equal(await b.running.ended, 0);
    await b.start();
    const { isIntact, longestGapMs } = await download.finish(90_000);
    t.ok(isIntact, 'not a byte is wrong');
    t.comment(`longest gap ${longestGapMs.toFixed(0)} ms`);
  });

  await t.test('at the end of a drain waits for a download', async (t) => {
    const download = await sites.download({ bytes: 40 * MB, bytesPerSecond: 8 * MB });
    await download.reaches(10 * MB, 30_000);
    const left = sayingGoodbye(a.running, 'leaving');
    const command = ['dist/culvert.cjs', 'drain', '--socket', b.daemon.socket];
    const drain = lab.spawn('b', [process.execPath, ...command]);
    const { isIntact } = await download.finish(90_000);
    t.ok(isIntact, 'not a byte is wrong');
    await left;
    t.equal(await drain.ended, 0);
    t.equal(await b.running.ended, 0);
    await b.start();
    await sites.meet(30_000);
  });

  await t.test('that a host of the LAN forges is dropped and counted', async (t) => {
    const forged = `
      const message = Buffer.concat([Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{"reason":"leaving"}')]);
      const socket = require('node:dgram').createSocket('udp4');
      socket.bind(2680, () => {
        let left = 2;
        for (const to of ['100.64.0.2', '${sites.internet.lanOf('b').host}']) {
          socket.send(message, 2680, to, () => --left || socket.close());
        }
      });`;
    const masquerade = `
table ip lan
delete table ip lan
table ip lan {
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname "${sites.internet.interfaceOf('a')}" masquerade
  }
}
`;
    const clear = 'table ip lan\ndelete table ip lan\n';
    for (const [what, rules] of [
      ['behind a router that does not masquerade', clear],
      ['behind a router that masquerades', masquerade],
    ] as const) {
      await sites.internet.nft('a', rules);
      const count = async () => (await sites.dropsOf('a'))['peering-from-lan'] ?? 0;
      const [before, linesBefore] = [await count(), b.running.lines.length];
      const { code, stderr } = await lab.exec('host-a', [process.execPath, '-e', forged]);
      t.equal(code, 0, stderr);
      await sites.meet(2000);
      t.ok((await count()) > before, `${what}: counted`);
      const said = b.running.lines.slice(linesBefore).join('\n');
      t.notMatch(said, 'said goodbye', `${what}: nothing happens`);
    }
  });
});

/** Waits for the next line in which a daemon says that its peer left. */
async function sayingGoodbye(running: Running, reason: string): Promise<void> {
  const from = running.lines.length;
  const isIt = (line: string) => line.includes('said goodbye') && line.includes(reason);
  const deadline = performance.now() + 60_000;
  while (!running.lines.slice(from).some(isIt)) {
    if (performance.now() > deadline) {
      throw new Error(`no goodbye of ${deviceOf('a')}: ${running.lines.slice(from).join('\n')}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
