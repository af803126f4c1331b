import t from 'tap';
import { CLIENT, GATEWAY, ResourceSites } from '../../sim/resource-sites.ts';
import { udp } from '../fastpath/packets.ts';
import { icmpError } from '../nat/icmp-packets.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

const MINUTES = 60_000;

/** Two sites that are routed to each other, of which one serves what the other may use. */
function routedSites(): ResourceSites {
  return new ResourceSites(SEED, {
    resources: [{ id: 'lan', type: 'cidr', prefixes: ['10.9.0.0/24'] }],
    authorizations: [{ peer: 'client', resource: 'lan' }],
    behindClient: ['192.168.1.0/24'],
    behindGateway: ['10.9.0.0/24'],
    client: { resources: [] },
  });
}

await t.test('hosts that use one port both ways call each other in turn', async (t) => {
  const sites = routedSites();
  const ports = { sourcePort: 5060, destinationPort: 5060 };
  const fromClient = udp({ source: '192.168.1.10', destination: '10.9.0.7', ...ports });
  const fromSite = udp({ source: '10.9.0.7', destination: '192.168.1.10', ...ports });
  for (let i = 0; i < 2; i++) {
    sites.send('gateway', fromSite);
    t.equal(sites.seen('client').length, 1, 'the site calls');
    sites.advance(5 * MINUTES);
    sites.send('client', fromClient);
    t.equal(sites.seen('gateway').length, 1, 'the client calls, long after that was over');
    sites.advance(5 * MINUTES);
  }
});

await t.test('a service of a gateway that does not run is told to be absent', async (t) => {
  const sites = routedSites();
  const fields = { type: 3, code: 3, rest: 0 };
  const asked = udp({ source: CLIENT.ipv4, destination: GATEWAY.ipv4, destinationPort: 53_000 });
  const way = { source: GATEWAY.ipv4, destination: CLIENT.ipv4 };
  sites.send('gateway', icmpError({ ...fields, ...way }, asked));
  t.match(sites.seen('client'), [{ icmp: '3/3', source: GATEWAY.ipv4 }]);

  const answer = udp({ source: GATEWAY.ipv4, destination: CLIENT.ipv4 });
  const back = { source: CLIENT.ipv4, destination: GATEWAY.ipv4 };
  sites.send('client', icmpError({ ...fields, ...back }, answer));
  t.match(sites.seen('gateway'), [{ icmp: '3/3', source: CLIENT.ipv4 }]);

  const toSite = { source: '192.168.1.10', destination: '10.9.0.7' };
  sites.send('client', icmpError({ ...fields, ...toSite }, answer));
  t.same(sites.seen('gateway'), [], 'nothing in the site depends on errors of peers');
});
