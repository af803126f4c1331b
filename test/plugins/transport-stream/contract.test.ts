import t from 'tap';
import { streamTransportContract } from '../../contract/transport.ts';
import { Loopback } from './loopback.ts';

await t.test('streams of Node.js keep the contract', async (t) => {
  await streamTransportContract(t, async (t) => new Loopback(t));
});
