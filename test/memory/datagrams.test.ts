import t from 'tap';
import type { IpAddress } from '../../core/net/ip-address.ts';
import { datagramsContract } from '../contract/datagrams.ts';
import { MemoryNetwork } from './datagrams.ts';

await t.test('UDP in memory keeps the contract', async (t) => {
  await datagramsContract(t, async () => {
    const network = new MemoryNetwork();
    const host = network.host(
      (address) => address.startsWith('127.') || address === '::1',
      (family) => (family === 4 ? '127.0.0.1' : '::1') as IpAddress,
    );
    return {
      create: () => host.createDatagrams(),
      settle: async () => network.deliver(),
    };
  });
});
