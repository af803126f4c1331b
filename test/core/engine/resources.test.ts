import t from 'tap';
import { ResourceSites, CLIENT } from '../../sim/resource-sites.ts';
import { headersOf, payloadOf, udp } from '../fastpath/packets.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

const CRM = { id: 'crm', type: 'dns', patterns: ['crm.corp.example'] };

await t.test(
  'a host reaches a name in the site of a gateway, from the address of its router',
  async (t) => {
    const sites = new ResourceSites(SEED, {
      resources: [CRM],
      authorizations: [{ peer: 'client', resource: 'crm' }],
    });
    sites.gateway.names.zone = ({ type }) =>
      type === 'A' ? [{ type: 'A', name: 'crm.corp.example', ttl: 60, data: '192.168.1.5' }] : [];
    const [proxy = ''] = sites.lookUp('crm.corp.example');
    t.match(proxy, /^100\.96\./);
    const request = udp({
      payload: new Uint8Array([1, 2, 3]),
      source: '192.168.1.10',
      destination: proxy,
      sourcePort: 4000,
      destinationPort: 80,
    });
    sites.send('client', request);
    const [arrived] = sites.received('gateway');
    if (arrived === undefined) throw new Error('nothing arrived');
    t.match(readUdp(arrived), {
      source: CLIENT.ipv4,
      destination: '192.168.1.5',
      destinationPort: 80,
    });
    t.same([...payloadOf(arrived)], [1, 2, 3]);
    const { sourcePort } = readUdp(arrived);
    sites.send(
      'gateway',
      udp({
        payload: new Uint8Array([4]),
        source: '192.168.1.5',
        destination: CLIENT.ipv4,
        sourcePort: 80,
        destinationPort: sourcePort,
      }),
    );
    const [answer] = sites.received('client');
    if (answer === undefined) throw new Error('no answer');
    t.match(readUdp(answer), { source: proxy, destination: '192.168.1.10', destinationPort: 4000 });
  },
);

function readUdp(packet: Uint8Array) {
  const { transport } = headersOf(packet);
  const view = new DataView(packet.buffer, packet.byteOffset);
  return {
    source: [...packet.subarray(12, 16)].join('.'),
    destination: [...packet.subarray(16, 20)].join('.'),
    sourcePort: view.getUint16(transport),
    destinationPort: view.getUint16(transport + 2),
  };
}
