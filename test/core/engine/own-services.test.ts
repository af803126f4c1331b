import t from 'tap';
import { CLIENT, GATEWAY, ResourceSites } from '../../sim/resource-sites.ts';
import { ACK, FIN, SYN, tcp, udp } from '../fastpath/packets.ts';
import { CRM, MAY_USE_CRM } from './resource-fixtures.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

const sites = () => new ResourceSites(SEED, { resources: [CRM], authorizations: [MAY_USE_CRM] });

/** From the router of the client to a service of the gateway itself, and back. */
const REQUEST = { source: CLIENT.ipv4, destination: GATEWAY.ipv4, destinationPort: 8053 };
const REPLY = { source: GATEWAY.ipv4, destination: CLIENT.ipv4, sourcePort: 8053 };

await t.test('a gateway takes one connection after the other at its own address', async (t) => {
  const s = sites();
  for (const port of [4000, 4001, 4000]) {
    const send = (flags: number) => {
      s.send('client', tcp({ ...REQUEST, sourcePort: port, flags }));
      t.match(s.seen('gateway').at(-1), { sourcePort: port }, `port ${port}`);
    };
    const reply = (flags: number) => {
      s.send('gateway', tcp({ ...REPLY, destinationPort: port, flags }));
      t.match(s.seen('client').at(-1), { destinationPort: port });
    };
    send(SYN);
    reply(SYN | ACK);
    send(FIN | ACK);
    reply(FIN | ACK);
    s.advance(10_000);
  }
});

await t.test('and questions however long it was asked none', async (t) => {
  const s = sites();
  for (const port of [4000, 4000, 4001]) {
    s.send('client', udp({ ...REQUEST, sourcePort: port }));
    t.match(s.seen('gateway').at(-1), { sourcePort: port });
    s.send('gateway', udp({ ...REPLY, destinationPort: port }));
    t.match(s.seen('client').at(-1), { destinationPort: port });
    s.advance(10 * 60_000);
  }
});
