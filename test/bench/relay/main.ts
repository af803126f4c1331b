/**
 * Datagrams through a relay without a tunnel, as many as it takes:
 *
 *     relay.mjs client NATIVE RELAY PEER flood|wait    makes an allocation with a channel to the peer, says
 *                                                      `relayed ADDRESS`, and floods the channel or waits
 *     relay.mjs peer NATIVE ADDRESS                    floods the relayed address
 *
 * Both run until a signal ends them. Whoever started them counts what arrives.
 */
import { parseSocketAddress, type SocketAddress } from '../../../core/net/socket-address.ts';
import { encodeChannelData } from '../../../core/turn/channel-data.ts';
import { TurnClient } from '../../interop/turn-client.ts';
import { DATAGRAM_LENGTH, PEER_PORT } from './datagrams.ts';
import { UdpLine } from './udp-line.ts';

const [role, nativeFile = '', remote = '', to = '', what] = process.argv.slice(2);
const payload = new Uint8Array(DATAGRAM_LENGTH).fill(1);
let isOver = false;
process.once('SIGTERM', () => (isOver = true));

if (role === 'client') await beClient();
else await new UdpLine(nativeFile, address(remote), PEER_PORT).flood(payload, () => isOver);
process.exit();

async function beClient(): Promise<void> {
  const line = new UdpLine(nativeFile, address(remote), 0);
  const client = new TurnClient(line, {
    type: 'long-term',
    username: 'culvert',
    password: 'correct-horse',
  });
  const { relayed } = await client.event('allocated');
  client.do((allocation, now) => void allocation.channelTo(address(to), now));
  const { channel } = await client.event('channel-bound');
  console.log(`relayed ${relayed[0]}`);
  const message = encodeChannelData({ channel, payload }, 'udp');
  if (what === 'flood') await line.flood(message, () => isOver);
  while (!isOver) await new Promise((resolve) => setTimeout(resolve, 50));
  client.close();
}

function address(text: string): SocketAddress {
  const parsed = parseSocketAddress(text);
  if (!parsed.ok) throw new Error(`not an address with its port: ${text}`);
  return parsed.value;
}
