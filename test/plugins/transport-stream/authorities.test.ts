import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:tls';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { StreamEvent } from '../../../core/plugin/streams.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { StreamTransport } from '../../../plugins/transport-stream/stream-transport.ts';
import { Authority, makeDirectory } from '../../interop/mosquitto-broker.ts';
import { address } from './loopback.ts';

/* Node.js reads the authorities that it trusts when it starts, so a child dials, and prints what it was told. */

const CERTIFICATE = 'CULVERT_TEST_CERTIFICATE';

interface Issued {
  readonly certificate: string;
  readonly privateKey: string;
}

if (process.env[CERTIFICATE] !== undefined) {
  console.log(JSON.stringify(await dialEach(JSON.parse(process.env[CERTIFICATE]) as Issued)));
  process.exit(0);
}

const directory = makeDirectory();
t.teardown(() => directory.remove());
const [known, unknown] = [new Authority(directory, 'known'), new Authority(directory, 'unknown')];
const names = 'DNS:relay.example,IP:127.0.0.1';

await t.test('a relay is trusted by its name or its address, and by no other', async (t) => {
  const [byName, byAddress, otherName] = child(known.issue('relay', names));
  t.match(byName, { type: 'opened' });
  t.match(byAddress, { type: 'opened' });
  t.match(otherName, { type: 'closed', why: /for another name/ });
});

await t.test('an authority that we do not know vouches for nobody', async (t) => {
  for (const event of child(unknown.issue('stranger', names))) {
    t.match(event, { type: 'closed', why: /no authority that we know/ });
  }
});

function child(issued: Issued): readonly StreamEvent[] {
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [...process.execArgv, fileURLToPath(import.meta.url)],
    {
      encoding: 'utf8',
      env: {
        ...process.env,
        NODE_EXTRA_CA_CERTS: known.path('crt'),
        [CERTIFICATE]: JSON.stringify(issued),
      },
    },
  );
  const line = stdout.split('\n').find((line) => line.startsWith('['));
  if (line === undefined) throw new Error(stderr);
  return JSON.parse(line) as StreamEvent[];
}

/** What is told of a dial by the right name, by the address, and by another name. */
async function dialEach({ certificate, privateKey }: Issued): Promise<readonly StreamEvent[]> {
  const server = createServer({ cert: certificate, key: privateKey }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const at = address('127.0.0.1', (server.address() as AddressInfo).port);
  const told: StreamEvent[] = [];
  for (const host of ['relay.example', undefined, 'other.example']) {
    const streams = new StreamTransport(undefined, nullLog);
    const first = new Promise<StreamEvent>((resolve) => streams.listenTo(resolve));
    const target = { protocol: 'tls', address: at, trust: { type: 'authorities' } } as const;
    streams.dial(2, host === undefined ? target : { ...target, host });
    told.push(await first);
    streams.stop();
  }
  return told;
}
