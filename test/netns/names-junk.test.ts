import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { mutatedQuery, queryTemplates } from '../core/dns/mutated-queries.ts';
import { eventually } from '../lab/daemon.ts';
import { HOSTS, NameSites, PUBLIC_ANSWER } from '../lab/name-sites.ts';
import { whyNoLab } from '../lab/namespaces.ts';
import { SeededRandom } from '../sim/seeded-random.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const QUERIES = 10_000;
/** Fewer, as each stream ends with the first one that is no query. */
const STREAMED = 1_000;

/**
 * Sends the messages of a file, one of base64 a line: over UDP fifty each turn, over TCP ten on a stream
 * and eight streams at a time. Says at the end how many answers came.
 */
const SEND = `
  const [file, transport, address, port] = process.argv.slice(1);
  const lines = require('node:fs').readFileSync(file, 'utf8').split('\\n');
  const messages = lines.map((line) => Buffer.from(line, 'base64'));
  const over = { udp, tcp };
  over[transport]();
  function udp() {
    const socket = require('node:dgram').createSocket('udp4');
    let answers = 0;
    socket.on('message', () => answers++);
    const timer = setInterval(() => {
      for (const message of messages.splice(0, 50)) socket.send(message, Number(port), address);
      if (messages.length > 0) return;
      clearInterval(timer);
      setTimeout(() => { console.log('answers ' + answers); socket.close(); }, 300);
    }, 10);
  }
  function tcp() {
    let streams = 0;
    let bytes = 0;
    const next = () => {
      const some = messages.splice(0, 10);
      if (some.length === 0) return void (--streams === 0 && console.log('answers ' + bytes));
      const socket = require('node:net').connect(Number(port), address);
      socket.on('data', (chunk) => { bytes += chunk.length; });
      socket.on('error', () => undefined);
      socket.on('close', next);
      socket.setTimeout(300, () => socket.destroy());
      for (const message of some) {
        const length = Buffer.alloc(2);
        length.writeUInt16BE(message.length);
        socket.write(Buffer.concat([length, message]));
      }
    };
    for (; streams < 8; streams++) next();
  }`;

await t.test(
  `${QUERIES} random and mutated queries harm neither daemon (SEED=${SEED})`,
  { skip: whyNoLab() },
  async (t) => {
    const random = new SeededRandom(SEED);
    const templates = queryTemplates();
    const sites = await NameSites.create(t, 'names-junk');
    await sites.start();
    const send = async (
      namespace: string,
      transport: 'udp' | 'tcp',
      count: number,
      to: string,
    ): Promise<number> => {
      const file = join(sites.directory, 'queries');
      const queries = Array.from({ length: count }, () => mutatedQuery(templates, random));
      writeFileSync(file, queries.map((it) => Buffer.from(it).toString('base64')).join('\n'));
      const node = [process.execPath, '-e', SEND, file, transport, ...to.split(' ')];
      const sending = sites.lab.spawn(namespace, node);
      const [, answers] = await sending.waitFor(/^answers (\d+)/, 60_000);
      t.comment(`${count} over ${transport} to ${to}: ${answers} answers or bytes of such`);
      return Number(answers);
    };
    const site = `${sites.b.ipv4} 53535`;
    t.ok((await send('host-a', 'udp', QUERIES, `${HOSTS.publicIpv4} 53`)) > QUERIES / 4);
    t.ok((await send('host-a', 'tcp', STREAMED, `${HOSTS.router.ipv4} 53`)) > STREAMED);
    t.ok((await send('a', 'udp', STREAMED, site)) > STREAMED / 4, 'the gateway is asked too');
    t.ok((await send('a', 'tcp', STREAMED, site)) > STREAMED);

    const isAnswered = await eventually(
      () => sites.ask('ordinary.example'),
      (answer) => answer === PUBLIC_ANSWER,
      10_000,
    );
    t.ok(isAnswered);
    t.match(await sites.ask('crm.corp.example'), /^100\.96\./);
    t.equal(await sites.ask('crm.corp.example', 'TXT'), '"kept in the site"');
    for (const { daemon } of [sites.a, sites.b]) t.equal(await daemon.stop(), 0);
    const leaked = sites.publicQueries.filter((query) => /[ .]corp\.example$/i.test(query));
    t.strictSame(leaked, []);
  },
);
