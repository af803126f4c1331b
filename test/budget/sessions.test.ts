import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import { MOST_FLOW_RECORDS } from '../../core/engine/flow-records.ts';
import { Sessions } from '../../core/engine/sessions.ts';
import type { Flow } from '../../core/fastpath/flow.ts';
import { MOST_SESSIONS } from '../../core/nat/session-table.ts';
import { PROTOCOL_UDP } from '../../core/packet/ip-packet.ts';
import { instantAt } from '../../core/sansio/instant.ts';
import { SeededRandom } from '../sim/seeded-random.ts';

/** What one of a hundred thousand may take, on the heap and in typed arrays. */
const BYTES_A_SESSION = 200;

const NOW = instantAt(0);
const PEERS = Array.from({ length: 8 }, (_, peer) => `peer-${peer}`);
const PROXY = Uint8Array.of(100, 96, 0, 1);
const SERVER = Uint8Array.of(10, 0, 0, 1);

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** With so many, and with so many more, there are as many flow records: their ring is no part of a session. */
const FIRST = 2 * MOST_FLOW_RECORDS - 1;
const MORE = 22 * MOST_FLOW_RECORDS;

await t.test(`a session takes at most ${BYTES_A_SESSION} bytes`, async (t) => {
  const empty = memoryUsed();
  const sessions = createSessions();
  const columns = memoryUsed() - empty;
  for (let n = 0; n < FIRST; n++) open(sessions, n);
  const few = memoryUsed();
  for (let n = FIRST; n < FIRST + MORE; n++) open(sessions, n);
  const objects = memoryUsed() - few;
  const each = columns / MOST_SESSIONS + objects / MORE;
  t.comment(`${each.toFixed(1)} bytes a session`);
  t.equal(sessions.size, FIRST + MORE);
  t.ok(each <= BYTES_A_SESSION, `${each.toFixed(1)} bytes`);
});

function createSessions(): Sessions {
  const random = new SeededRandom(1);
  return new Sessions({ random, unixMs: 0, onEnd: () => undefined, pathOf: () => 'direct' }, NOW);
}

/** As the side of the gateway does for a flow to a proxy. */
function open(sessions: Sessions, n: number): void {
  const peer = n % PEERS.length;
  const flow: Flow = {
    family: 4,
    protocol: PROTOCOL_UDP,
    source: Uint8Array.of(100, 64, 0, 1 + peer),
    destination: PROXY,
    sourcePort: 1 + Math.floor(n / PEERS.length),
    destinationPort: 53,
    isFragment: false,
  };
  const outside = { source: flow.source, destination: SERVER };
  const tag = { role: 'gateway', peer, peerId: PEERS[peer] ?? '', resource: 'crm' } as const;
  const opened = sessions.open(flow, outside, { ...tag, domain: 'crm.corp.example' }, NOW);
  if (!opened.ok) throw new Error(opened.why);
}

function memoryUsed(): number {
  collect();
  const { heapUsed: objects, arrayBuffers } = process.memoryUsage();
  return objects + arrayBuffers;
}
