import t, { type Test } from 'tap';
import type { View } from '../../openwrt/command/ask-status.ts';
import { dns } from '../../openwrt/command/dns.ts';
import { flows } from '../../openwrt/command/flows.ts';
import { MOST_SESSIONS_WATCHED, nat } from '../../openwrt/command/nat.ts';
import { resources } from '../../openwrt/command/resources.ts';
import { status } from '../../openwrt/command/status.ts';
import { MOST_TOLD, resourceMethods } from '../../openwrt/daemon-methods.ts';
import {
  ResourceSites,
  START_UNIX_MS,
  type ResourceDocuments,
  type Router,
} from '../sim/resource-sites.ts';
import { serveDaemon } from './scene.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);
const WIDTH = 100;

const CRM = {
  id: 'crm',
  name: 'Customers',
  type: 'dns',
  patterns: ['crm.corp.example', '*.app.example', 'db.corp.example'],
  filters: [{ protocol: 'udp' }, { protocol: 'tcp', ports: ['443', '8000-8100'] }],
};
const PRINTERS = { id: 'printers', type: 'cidr', prefixes: ['192.168.7.0/24'] };
const CLIENT_MAY = { peer: 'client', resource: 'crm', expiresAt: '2027-01-31T18:00:00Z' };

await t.test('the client sees what it uses, and through whom', async (t) => {
  const sites = await sitesOf();
  sites.lookUp('crm.corp.example');
  const text = await shown(t, sites, 'client', (view) => resources(view, undefined));
  t.equal(
    text,
    `\
USED      TYPE  WHAT                                       STATE   GATEWAY
crm       dns   crm.corp.example *.app.example and 1 more  usable  gateway
  name  Customers
  only  udp; tcp 443, 8000-8100
  names 1 confirmed
printers  cidr  192.168.7.0/24                             usable  gateway
`,
  );
});

await t.test('the gateway sees what it serves, and to whom until when', async (t) => {
  const sites = await sitesOf();
  sites.lookUp('crm.corp.example');
  const text = await shown(t, sites, 'gateway', (view) => resources(view, undefined));
  t.equal(
    text,
    `\
SERVED    TYPE  WHAT                                       STATE     PEERS
crm       dns   crm.corp.example *.app.example and 1 more  usable    1
  name  Customers
  only  udp; tcp 443, 8000-8100
  for   client, connected; until 2027-01-31T18:00:00Z
  names 1 in use
printers  cidr  192.168.7.0/24                             unusable  0
  why   no peer may use it
  cure  name peers and this resource in authorizations; is expiresAt over?
`,
  );
});

await t.test('one resource is shown with its names, and in JSON as well', async (t) => {
  const sites = await sitesOf();
  sites.lookUp('crm.corp.example');
  const used = await shown(t, sites, 'client', (view) => resources(view, 'crm'));
  t.match(used, '\n  what  crm.corp.example *.app.example db.corp.example\n');
  t.match(used, /\ncrm\.corp\.example {2}confirmed {2}gateway\n {2}proxy 100\.96\.0\.4 /);
  t.notMatch(used, 'printers');
  const served = await shown(t, sites, 'gateway', (view) => resources(view, 'crm'));
  t.match(
    served,
    /\ncrm\.corp\.example {2}client\n {2}proxy .*\n {2}proxy .*\n {2}is {4}192\.168\.1\.5\n/,
  );
  for (const text of [used, served])
    t.ok(
      text.split('\n').every((it) => it.length <= WIDTH),
      text,
    );
  const json = await shown(t, sites, 'client', (view) => resources(view, 'crm'), true);
  t.match(JSON.parse(json), { used: [{ id: 'crm', names: [{ domain: 'crm.corp.example' }] }] });
  const asked = shown(t, sites, 'client', (view) => resources(view, 'nothing'));
  await t.rejects(asked, { exit: 'failure', message: /'nothing'/ });
});

await t.test('what cannot be used is told with its cause and its cure', async (t) => {
  const sites = await sitesOf();
  sites.stop('gateway', 'leaving');
  const failures = [{ address: '127.0.0.1:53053', why: 'port-taken' }] as never;
  sites.client.names.interceptionFailure = { why: 'no-answer', detail: 'nobody answers' };
  sites.client.input({ type: 'dns-listening', failures });
  const text = await shown(t, sites, 'client', (view) => resources(view, undefined));
  t.match(
    text,
    `
  why   its names are not answered
  cure  see: culvert dns
  via   gateway, no path: it said goodbye: it was stopped
`,
  );
  t.match(text, '\n  why   no gateway of it is connected\n  cure  see: culvert paths\n');
  t.match(
    await shown(t, sites, 'client', dns),
    `\
queries of the LAN do not come here (redirect)
  why   another program has the port: 127.0.0.1:53053
  cure  choose a dns.listenPort that is free
`,
  );
  t.match(
    await shown(t, sites, 'client', status),
    '\nresources: 0 of 2 usable, 0 sessions · names not answered (port-taken)\n',
  );
});

await t.test('DNS is shown with outcomes in words, servers, and names with proxies', async (t) => {
  const sites = await sitesOf();
  sites.lookUp('crm.corp.example');
  sites.lookUp('www.example.net');
  t.equal(
    (await shown(t, sites, 'client', dns)).replace(/\d\.\d ms/, '1.0 ms'),
    `\
queries of the LAN come here (redirect)

QUERIES                                              COUNT
for names of resources: answered with proxies        1
for other names: asked of servers                    1
questions for servers in all, those of gateways too  1

SERVER            STATE      LATENCY  ANSWERS  TIMEOUTS  FAILURES
100.64.0.2:53535  not asked  -        0        0         0
192.0.2.53:53     alive      1.0 ms   1        0         0

cache: 0 of 1 questions answered, 0 kept
proxies: in use for 1 of at most 65536 names

NAME              PROXIES (IPv4)
crm.corp.example  100.96.0.4 100.96.0.5 100.96.0.6 100.96.0.7
`,
  );
  t.match(await shown(t, sites, 'gateway', dns), 'are left alone: dns.mode is off\n');
  t.match(JSON.parse(await shown(t, sites, 'client', dns, true)), {
    state: 'intercepting',
    proxies: { used: 1 },
  });
});

await t.test('each outcome of a query that is counted has words', async (t) => {
  const sites = await sitesOf();
  const { queries } = sites.client.engine.resources.dns(0);
  const counted = Object.fromEntries(Object.keys(queries).map((outcome) => [outcome, 77]));
  const answer = { ...sites.client.engine.resources.dns(0), queries: counted };
  const { socket } = await serveDaemon(t, { dns: () => answer });
  const text = await written((write) => dns({ socket, json: false, watch: false, write }));
  for (const outcome of Object.keys(queries)) t.notMatch(text, new RegExp(`^${outcome} +77`, 'm'));
});

await t.test('sessions are shown with what they become, on both sides', async (t) => {
  const sites = await sitesOf();
  t.equal(await shown(t, sites, 'client', nat), 'no sessions are open\n');
  const [proxy = ''] = sites.lookUp('crm.corp.example');
  const arrived = sites.deliver({ to: proxy });
  if (arrived === undefined) throw new Error('nothing arrived');
  sites.answer(arrived);
  t.equal(
    await shown(t, sites, 'client', nat),
    `\
1 session

PROTOCOL  FROM               TO             STATE      IDLE  SENT  RECEIVED
udp       192.168.1.10:4000  100.96.0.4:80  confirmed  0 s   29 B  29 B
  as    100.64.0.1:4000 → 100.96.0.4:80
  for   crm (crm.corp.example) at gateway
`,
  );
  const atGateway = await shown(t, sites, 'gateway', nat);
  t.match(atGateway, '\n  as    100.64.0.1:4000 → 192.168.1.5:80\n');
  t.match(atGateway, '\n  for   crm (crm.corp.example), used by client\n');
  t.match(JSON.parse(await shown(t, sites, 'client', nat, true)), {
    total: 1,
    sessions: [{ peer: 'gateway', protocol: 'udp' }],
  });
  t.match(await shown(t, sites, 'gateway', status), '\nresources: 2 served, 1 session\n');
});

await t.test('a screen shows the latest sessions, and how many there are', async (t) => {
  const sites = await sitesOf();
  const [proxy = ''] = sites.lookUp('crm.corp.example');
  const total = MOST_SESSIONS_WATCHED + 3;
  for (let i = 0; i < total; i++) sites.sendUdp({ to: proxy, port: 4000 + i });
  const { engine } = sites.client;
  const methods = resourceMethods(engine.resources, sites.time.clock());
  const { socket, stop } = await serveDaemon(t, methods);
  let text = '';
  const watching = nat({
    socket,
    json: false,
    watch: true,
    write: (piece) => {
      text += piece;
      void stop();
    },
  });
  await t.rejects(watching, /culvert/, 'it goes on while there is a daemon');
  t.match(text, `${total} sessions, the latest ${MOST_SESSIONS_WATCHED} of them\n`);
  t.match(text, `192.168.1.10:${4000 + total - 1} `);
  t.notMatch(text, '192.168.1.10:4000 ');
});

await t.test('without resources there is nothing to show, and no line in the status', async (t) => {
  const sites = await sitesOf({ resources: [], authorizations: [] });
  const text = await shown(t, sites, 'client', (view) => resources(view, undefined));
  t.match(text, 'there are no resources');
  t.notMatch(await shown(t, sites, 'client', status), 'resources');
});

await t.test('flows are printed as they began and ended, one record a line', async (t) => {
  const sites = await sitesOf();
  const [proxy = ''] = sites.lookUp('crm.corp.example');
  sites.sendUdp({ to: proxy });
  sites.advance(61_000);
  const lines = await shown(t, sites, 'client', (view) => flows({ ...view, follow: false }));
  const [open, close, ...more] = recordsOf(lines);
  t.match(open, { event: 'open', time: /^2026-01-01T00:00:\d\d\.\d{3}Z$/, path: 'direct' });
  t.match(close, {
    event: 'close',
    time: /^2026-01-01T00:01:\d\d\.\d{3}Z$/,
    openedAt: open?.['time'] as string,
    lastPacketAt: /Z$/,
    domain: 'crm.corp.example',
    sentPackets: 1,
    sentBytes: 29,
    receivedBytes: 0,
  });
  t.same(more, []);
});

await t.test('more records than one answer has are all printed', async (t) => {
  const { socket } = await serveDaemon(t, {
    flows: (params) => {
      const { after, most } = params as { after: number; most: number };
      const left = Math.min(most, 2 * MOST_TOLD + 5 - after);
      return { run: 1, records: Array.from({ length: left }, (_, i) => record(after + 1 + i)) };
    },
  });
  const text = await written((write) => flows({ socket, follow: false, write }));
  const sequences = recordsOf(text).map(({ sequence }) => sequence);
  t.same(
    sequences,
    Array.from({ length: 2 * MOST_TOLD + 5 }, (_, i) => i + 1),
  );
});

await t.test('who follows is told what is missing, and of a restart', async (t) => {
  const answers = [
    // The first one tells what is kept: what gave way before nobody waits for.
    { run: 1, records: [record(7), record(8)] },
    { run: 1, records: [] },
    { run: 1, records: [record(12)] },
    { run: 2, records: [] },
    { run: 2, records: [record(1)] },
  ];
  const asked: unknown[] = [];
  const { socket, stop } = await serveDaemon(t, {
    flows: (params) => {
      asked.push((params as { after: number }).after);
      return answers.shift() ?? void stop();
    },
  });
  let text = '';
  const following = flows({ socket, follow: true, write: (piece) => void (text += piece) });
  await t.rejects(following, /culvert/, 'it goes on while there is a daemon');
  t.match(recordsOf(text), [
    { event: 'open', sequence: 7 },
    { event: 'open', sequence: 8 },
    { event: 'gap', missing: 3 },
    { event: 'open', sequence: 12 },
    { event: 'restart' },
    { event: 'open', sequence: 1 },
  ]);
  t.same(asked.slice(0, 5), [0, 8, 8, 12, 0]);
});

await t.test('parameters that make no sense are refused', async (t) => {
  const sites = await sitesOf();
  const methods = resourceMethods(sites.client.engine.resources, sites.time.clock());
  for (const params of [{ most: -1 }, { most: 'all' }, { most: 1.5 }, { after: null }]) {
    t.throws(() => methods.flows(params), { name: 'LocalApiError' }, JSON.stringify(params));
  }
  t.throws(() => methods.resources({ resource: 7 }), { name: 'LocalApiError' });
  for (const params of [undefined, null, 7, [], {}, { most: 1e9 }]) {
    t.ok(methods.nat(params), 'what is not said is as usual');
  }
});

async function sitesOf(documents: Partial<ResourceDocuments> = {}): Promise<ResourceSites> {
  const sites = new ResourceSites(SEED, {
    resources: [CRM, PRINTERS],
    authorizations: [CLIENT_MAY],
    ...documents,
  });
  sites.gateway.names.zone = ({ type, name }) =>
    type === 'A' ? [{ type: 'A', name, ttl: 60, data: '192.168.1.5' }] : [];
  // Listeners open, and queries are intercepted, in promises.
  for (let i = 0; i < 2; i++) {
    await new Promise((resolve) => setImmediate(resolve));
    sites.advance(1);
  }
  return sites;
}

/** What a command prints that asks the engine of a site through a socket. */
async function shown(
  t: Test,
  sites: ResourceSites,
  router: Router,
  command: (view: View) => Promise<void>,
  json = false,
): Promise<string> {
  const { engine } = sites.site(router);
  const { socket, stop } = await serveDaemon(t, {
    ...resourceMethods(engine.resources, sites.time.clock()),
    status: () => engine.status(),
  });
  let text = '';
  await command({ socket, json, watch: false, write: (piece) => void (text += piece) });
  await stop();
  return text;
}

async function written(command: (write: (text: string) => void) => Promise<void>) {
  let text = '';
  await command((piece) => void (text += piece));
  return text;
}

function recordsOf(text: string): readonly Readonly<Record<string, unknown>>[] {
  const lines = text.split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

function record(sequence: number) {
  return { sequence, time: START_UNIX_MS, event: 'open', role: 'client', peer: 'branch' };
}
