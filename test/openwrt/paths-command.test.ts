import t, { type Test } from 'tap';
import type { PathsStatus, RelayStatus } from '../../core/engine/path-status.ts';
import type { PeerStatus, Status } from '../../core/engine/status.ts';
import type { SocketAddress } from '../../core/net/socket-address.ts';
import { paths } from '../../openwrt/command/paths.ts';
import { status } from '../../openwrt/command/status.ts';
import { serveDaemon } from './scene.ts';

const WIDTH = 100;

const blank: Status = {
  phase: 'running',
  publicKey: '',
  interface: undefined,
  fleet: undefined,
  peers: [],
  resources: undefined,
  relays: [],
  streams: undefined,
  drain: undefined,
  drops: {},
  lastError: undefined,
};

const direct: PathsStatus = {
  state: 'connected',
  kind: 'direct',
  local: at('192.168.1.1:51820'),
  remote: at('203.0.113.7:51820'),
  relay: undefined,
  rttMs: 12.34,
  why: 'better',
  alternatives: [
    {
      kind: 'relayed',
      local: at('198.51.100.9:50012'),
      remote: at('203.0.113.7:51820'),
      rttMs: 40.2,
    },
  ],
  report: { kind: 'direct', rttMs: 12.5 },
};

const lost: PathsStatus = {
  state: 'failed',
  kind: undefined,
  local: undefined,
  remote: undefined,
  relay: undefined,
  rttMs: undefined,
  why: 'no-answer',
  alternatives: [],
  report: undefined,
};

const relayed: PathsStatus = {
  ...direct,
  kind: 'relayed',
  local: at('198.51.100.9:50012'),
  relay: 'turn:relay.example.net:3478',
  why: 'silence',
  alternatives: [],
  report: undefined,
};

const relays: readonly RelayStatus[] = [
  {
    url: 'turn:relay.example.net:3478',
    state: 'ready',
    why: undefined,
    detail: undefined,
    rttMs: 20.1,
    relayed: [at('198.51.100.9:50012'), at('[2001:db8::9]:50012')],
    mapped: at('203.0.113.5:51820'),
  },
  {
    url: 'turns:other.example.net:443',
    state: 'waiting',
    why: 'wrong-credentials',
    detail: 'error 401',
    rttMs: undefined,
    relayed: [],
    mapped: undefined,
  },
];

await t.test('each peer has its path, why it is this one, and what else would do', async (t) => {
  const depot = peer('depot', lost, { state: 'no path', cause: 'no-answer' });
  const peers = [peer('branch', direct), depot, peer('stall', relayed)];
  const text = await showPaths(t, { peers, relays });
  t.equal(
    text,
    `\
PEER    STATE      PATH     ROUND TRIP
branch  connected  direct   12.3 ms
  way   192.168.1.1:51820 → 203.0.113.7:51820
  why   more direct or faster than the one before
  peer  sends direct, 12.5 ms
  or    relayed 40.2 ms, 198.51.100.9:50012 → 203.0.113.7:51820
depot   no path    -        -
  why   no path answered
  cure  is the peer running? where neither side can be reached, a relay is needed (relays)
stall   connected  relayed  12.3 ms
  way   198.51.100.9:50012 → 203.0.113.7:51820
  relay turn:relay.example.net:3478
  why   the one before fell silent

RELAY                        STATE    ROUND TRIP
turn:relay.example.net:3478  ready    20.1 ms
  gives 198.51.100.9:50012 [2001:db8::9]:50012
  sees  203.0.113.5:51820
turns:other.example.net:443  waiting  -
  why   it refuses our login: error 401
  cure  check username and credential, or secret and the clocks of both sides
`,
  );
  t.ok(text.split('\n').every((line) => line.length <= WIDTH));
});

await t.test('one peer can be asked for, and JSON has it all', async (t) => {
  const peers = [peer('branch', direct), peer('depot', lost), peer('plain', undefined)];
  const one = await showPaths(t, { peers }, 'depot');
  t.notMatch(one, 'branch');
  t.match(one, 'depot');
  const all: unknown = JSON.parse(await showPaths(t, { peers, relays }, undefined, true));
  t.match(all, {
    peers: [
      { id: 'branch', rttMs: 12.34 },
      { id: 'depot', why: 'no-answer' },
    ],
    relays,
  });
  t.match(await showPaths(t, { peers }, 'plain'), /no paths are sought/);
  await t.rejects(showPaths(t, { peers }, 'nobody'), { exit: 'failure', message: /'nobody'/ });
});

await t.test('a reason that has no words yet is shown as it is', async (t) => {
  const peers = [peer('branch', { ...lost, why: 'the stars' })];
  t.match(await showPaths(t, { peers }), /why {3}the stars/);
});

await t.test('status and paths give the same cause of a peer, and its cure', async (t) => {
  for (const [cause, meaning, cure] of [
    ['key-mismatch', /signalled in its name does not open/, /culvert keygen/],
    ['preshared-key-differs', /the preshared keys differ/, /the same presharedKey/],
    ['said goodbye: leaving', /it said goodbye/, /start the peer again/],
  ] as const) {
    const searching = { ...lost, state: 'connecting', why: 'looking for a path' } as const;
    const peers = [peer('branch', searching, { state: 'connecting', cause })];
    for (const text of [await showPaths(t, { peers }), await showStatus(t, { peers })]) {
      t.match(text, /branch {2}connecting/);
      t.match(text, meaning);
      t.match(text, cure);
      t.notMatch(text, 'looking for a path');
    }
  }
});

await t.test('of a stream it is shown what it speaks, and no end that nobody chose', async (t) => {
  const way = { local: undefined, remote: at('203.0.113.7:443'), protocol: 'tls' } as const;
  const stream: PathsStatus = { ...direct, ...way, kind: 'stream', alternatives: [] };
  const spare = { ...way, kind: 'stream', protocol: 'wss', rttMs: 8 } as const;
  const peers = [peer('branch', stream), peer('depot', { ...direct, alternatives: [spare] })];
  const text = await showPaths(t, { peers });
  t.match(text, '  way   stream tls → 203.0.113.7:443\n');
  t.match(text, '  or    stream 8.0 ms, stream wss → 203.0.113.7:443\n');
});

await t.test('whether streams are accepted, and why not', async (t) => {
  const well = { listening: true, port: 8443, publicPort: 443 };
  t.match(
    await showPaths(t, { streams: well }),
    '\n\nstreams are accepted at port 8443, peers are told 443\n',
  );
  t.notMatch(await showStatus(t, { streams: well }), 'stream');
  const taken = { listening: false, port: 8443, why: 'port-taken' } as const;
  t.match(
    await showPaths(t, { streams: taken }),
    /streams are not accepted at port 8443\n {2}why {3}another program has the port\n {2}cure /,
  );
  const [headline] = (await showStatus(t, { streams: taken })).split('\n');
  t.equal(headline, 'running · streams not accepted at 8443 (port-taken)');
});

await t.test('without a daemon it says so', async (t) => {
  const { socket, stop } = await serveDaemon(t, {});
  await stop();
  const view = { socket, json: false, watch: false, write: () => undefined };
  await t.rejects(paths(view, undefined), { message: /is not running/ });
});

await t.test('culvert status has one line for each peer, with its path', async (t) => {
  const peers = [peer('branch', direct), peer('plain', undefined)];
  const [headline, , heading, branch, plain] = (await showStatus(t, { peers })).split('\n');
  t.equal(headline, 'running', 'relays that are well are not mentioned');
  t.match(heading, /^PEER {4}STATE {6}PATH {12}ENDPOINT/);
  t.match(branch, /^branch {2}connected {2}direct 12\.3 ms {2}203\.0\.113\.7:51820 /);
  t.match(plain, /^plain {3}connected {2}- {15}192\.0\.2\.9:51820 /);
  t.ok((heading ?? '').length <= WIDTH && (branch ?? '').length <= WIDTH);
});

await t.test('culvert status mentions what is wrong with relays, and a drain', async (t) => {
  const drain = { peers: ['branch'], endsWithinMs: 1000 };
  const text = await showStatus(t, { phase: 'draining', relays, drain });
  t.match(text, 'draining · 1 of 2 relays ready · waiting for 1 peer');
});

async function showPaths(
  t: Test,
  given: Partial<Status>,
  id?: string,
  json = false,
): Promise<string> {
  return written(t, given, (socket, write) => paths({ socket, json, watch: false, write }, id));
}

async function showStatus(t: Test, given: Partial<Status>): Promise<string> {
  return written(t, given, (socket, write) => status({ socket, json: false, watch: false, write }));
}

async function written(
  t: Test,
  given: Partial<Status>,
  command: (socket: string, write: (text: string) => void) => Promise<void>,
): Promise<string> {
  const { socket } = await serveDaemon(t, { status: () => ({ ...blank, ...given }) });
  let text = '';
  await command(socket, (piece) => (text += piece));
  return text;
}

function peer(
  id: string,
  path: PathsStatus | undefined,
  changes: Partial<PeerStatus> = {},
): PeerStatus {
  return {
    id,
    publicKey: '',
    state: 'connected',
    cause: undefined,
    endpoint: at('192.0.2.9:51820'),
    allowedIps: [],
    lastHandshakeUnixMs: undefined,
    handshakeMs: 12.3,
    rxBytes: 1234,
    txBytes: 56_789,
    ...(path === undefined ? {} : { path }),
    ...changes,
  };
}

function at(text: string): SocketAddress {
  return text as SocketAddress;
}
