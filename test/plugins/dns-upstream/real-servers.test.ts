import t from 'tap';
import { Forwarder, type ForwarderEvent } from '../../../core/dns/forwarder.ts';
import { decodeQuery } from '../../../core/dns/message.ts';
import type { UpstreamTransport } from '../../../core/dns/upstream.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { decode, question, realRandom } from '../../core/dns/messages.ts';
import { Authority, makeDirectory } from '../../interop/mosquitto-broker.ts';
import { Scene, upstream } from './scene.ts';
import { freePort, startDnsmasq, startUnbound } from './servers.ts';

const directory = makeDirectory();
t.teardown(() => directory.remove());
const authority = new Authority(directory, 'authority');
authority.issue('dns.test', 'DNS:localhost,IP:127.0.0.1');

/** Answers of 4 KB, which UDP does not take. */
const LONG = Array.from(
  { length: 20 },
  (_, i) => `long.test. 60 IN TXT "${String(i).padEnd(200, '-')}"`,
);

await t.test('unbound answers over each transport, by address and by name', async (t) => {
  const { plain, tls, https } = await startUnbound(t, directory, authority, 'dns.test', [
    'a.test. 60 IN A 192.0.2.7',
    ...LONG,
  ]);
  const servers: readonly (readonly [string, UpstreamTransport])[] = [
    [`127.0.0.1:${plain}`, 'udp'],
    [`127.0.0.1:${plain}`, 'tcp'],
    [`tls://127.0.0.1:${tls}`, 'tls'],
    [`tls://localhost:${tls}`, 'tls'],
    [`https://127.0.0.1:${https}/dns-query`, 'https'],
    [`https://localhost:${https}`, 'https'],
  ];
  for (const [server, transport] of servers) {
    const scene = new Scene(t, { authorities: [authority.certificate] });
    const ids = Array.from({ length: 300 }, (_, i) => i * 200 + 1);
    for (const [i, id] of ids.entries()) {
      scene.ask(server, transport, id, transport === 'udp' ? id % 64 : 0);
      // More at once do not fit into the buffer of its socket.
      if (transport === 'udp') await scene.until(() => i - scene.answers.length < 50);
    }
    await scene.until(() => scene.answers.length + scene.failures.length >= ids.length);
    t.same(scene.answeredIds, ids, `${transport}: all are answered, each with its id`);
    t.same(scene.failures, []);
    t.ok(scene.answers.every((answer) => answer.upstream === upstream(server).id));
    t.ok(scene.answers.every((answer) => answer.transport === transport));
    t.ok(
      scene.answers.every((answer) => answer.port === (transport === 'udp' ? answer.id % 64 : 0)),
    );
    const [first] = scene.answers;
    t.match(decode(first?.bytes ?? new Uint8Array()).answers, [
      { name: 'a.test', data: '192.0.2.7' },
    ]);

    scene.send(server, transport, question('long.test', 'TXT', { id: 7 }));
    await scene.until(() => scene.answers.length > ids.length);
    const long = decode(scene.answers.at(-1)?.bytes ?? new Uint8Array());
    t.equal(long.flag_tc, transport === 'udp');
    if (transport !== 'udp') t.equal(long.answers?.length, 20, `${transport}: 4 KB`);
    scene.stop();
  }
});

await t.test('a certificate of nobody we know, or for another name, is refused', async (t) => {
  authority.issue('other.test', 'DNS:other.test');
  const { tls, https } = await startUnbound(t, directory, authority, 'other.test', LONG);
  for (const authorities of [undefined, [authority.certificate]]) {
    const scene = new Scene(t, authorities && { authorities });
    for (const server of [`tls://localhost:${tls}`, `tls://127.0.0.1:${tls}`]) {
      scene.ask(server, 'tls', 1);
      scene.ask(server, 'tls', 2);
      await scene.until(() => scene.failures.length > 0);
      t.same(scene.failures.splice(0), [{ upstream: server, transport: 'tls' }]);
      scene.ask(server, 'tls', 3);
      await scene.until(() => scene.failures.length > 0);
      scene.failures.length = 0;
    }
    scene.ask(`https://localhost:${https}/`, 'https', 1);
    await scene.until(() => scene.failures.length > 0);
    t.same(scene.failures, [{ upstream: `https://localhost:${https}/`, transport: 'https' }]);
    t.same(scene.answers, []);
    const why = authorities ? 'ERR_TLS_CERT_ALTNAME_INVALID' : 'UNABLE_TO_VERIFY_LEAF_SIGNATURE';
    const line = { message: 'certificate of a dns server is not trusted', fields: { why } };
    await scene.until(() => scene.lines.length >= 3);
    t.same(scene.lines, [line, line, line], 'said once for each server');
  }
});

await t.test('dnsmasq ends a connection after 100 queries, and none is lost', async (t) => {
  const server = await startDnsmasq(t, '--address=/a.test/192.0.2.8');
  const scene = new Scene(t);
  const ids = Array.from({ length: 450 }, (_, i) => i * 100);
  for (const id of ids) scene.ask(server, 'tcp', id);
  await scene.until(() => scene.answers.length + scene.failures.length >= ids.length);
  t.same(scene.failures, []);
  t.same(scene.answeredIds, ids);
});

await t.test(
  'the forwarder asks on when a server is down, and where an answer is cut off',
  async (t) => {
    const down = `127.0.0.1:${await freePort()}`;
    const texts = LONG.map((_, i) => `--txt-record=long.test,${String(i).padEnd(200, '-')}`);
    const server = await startDnsmasq(t, '--address=/a.test/192.0.2.9', ...texts);
    const scene = new Scene(t);
    const now = () => instantAt(performance.now());
    const forwarder = new Forwarder({ random: realRandom }, now());
    const upstreams = [upstream(down), upstream(server)];
    forwarder.setGroup('all', { upstreams, isCached: false });
    const responses: Extract<ForwarderEvent, { type: 'response' }>[] = [];
    const died: string[] = [];
    /** Hands over what was told, as the driver does, until the forwarder has nothing to say. */
    const drive = (): void => {
      for (const answer of scene.answers.splice(0)) forwarder.handleAnswer(answer, now());
      for (const failure of scene.failures.splice(0)) forwarder.handleFailure(failure, now());
      if ((forwarder.pollTimeout()?.at ?? Infinity) <= now()) forwarder.handleTimeout(now());
      for (let one = forwarder.pollTransmit(); one !== undefined; one = forwarder.pollTransmit()) {
        scene.api.send(one);
      }
      for (let event = forwarder.pollEvent(); event !== undefined; event = forwarder.pollEvent()) {
        if (event.type === 'response') responses.push(event);
        else if (event.type === 'upstream-dead') died.push(event.upstream.id);
      }
    };
    const clients = [
      { name: 'a.test', type: 'A', transport: 'udp' },
      { name: 'long.test', type: 'TXT', transport: 'tcp' },
    ] as const;
    const startedAt = performance.now();
    for (const { name, type, transport } of clients) {
      const query = decodeQuery(question(name, type, { id: 4_242 }));
      if (!query.ok) throw new Error(query.why);
      forwarder.handleQuery({ source: name, transport }, query.value, 'all', now());
    }
    await scene.until(() => {
      drive();
      return responses.length === 2;
    });
    t.ok(performance.now() - startedAt < 1_000, 'a refusal is not waited for');
    t.same(died, [down]);
    const of = (source: string) =>
      decode(responses.find(({ client }) => client.source === source)?.bytes ?? new Uint8Array());
    t.match(of('a.test'), { id: 4_242, answers: [{ data: '192.0.2.9' }] });
    t.equal(of('long.test').answers?.length, 20);
    t.equal(of('long.test').flag_tc, false);
    t.equal(forwarder.stats.unsolicited, 0);
  },
);
