/**
 * Datagrams through a relay without a tunnel, as many as it takes:
 *
 *     relay.mjs client NATIVE RELAY PEER WINDOW    makes an allocation with a channel to the peer, says
 *                                                  `relayed ADDRESS`, and floods the channel
 *     relay.mjs peer NATIVE ADDRESS WINDOW         floods the relayed address
 *
 * With a window of 0 they only receive. Each says `ready` at its start, and at SIGUSR2 how much came:
 * `TIME: received COUNT`, with the number of times it was asked. SIGTERM ends them.
 */
import { parseSocketAddress, type SocketAddress } from '../../../core/net/socket-address.ts';
import { encodeChannelData } from '../../../core/turn/channel-data.ts';
import { TurnClient } from '../../interop/turn-client.ts';
import { FULL_LENGTH, PEER_PORT } from './datagrams.ts';
import { UdpLine } from './udp-line.ts';

const [role, nativeFile = '', ...parameters] = process.argv.slice(2);
const window = Number(parameters.at(-1));
const [remote, to] = parameters.slice(0, -1).map(address);
if (remote === undefined) throw new Error('no address to send to');
const end = new AbortController();
process.once('SIGTERM', () => end.abort());

const line = new UdpLine(nativeFile, remote, role === 'client' ? 0 : PEER_PORT);
let asked = 0;
process.on('SIGUSR2', () => console.log(`${++asked}: received ${line.received}`));
console.log('ready');
if (role === 'client' && to !== undefined) await beClient(to);
else await run();
process.exit();

async function beClient(peer: SocketAddress): Promise<void> {
  const credentials = { username: 'culvert', password: 'correct-horse' };
  const client = new TurnClient(line, { type: 'long-term', ...credentials });
  const { relayed } = await client.event('allocated');
  client.do((allocation, now) => void allocation.channelTo(peer, now));
  const { channel } = await client.event('channel-bound');
  line.wrap = (data) => encodeChannelData({ channel, payload: data }, 'udp');
  console.log(`relayed ${relayed[0]}`);
  await run();
  client.close();
}

async function run(): Promise<void> {
  if (window > 0) await line.flood(new Uint8Array(FULL_LENGTH).fill(1), window, end.signal);
  else await new Promise((resolve) => end.signal.addEventListener('abort', resolve));
}

function address(text: string): SocketAddress {
  const parsed = parseSocketAddress(text);
  if (!parsed.ok) throw new Error(`not an address with its port: ${text}`);
  return parsed.value;
}
