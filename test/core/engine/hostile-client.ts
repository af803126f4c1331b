import { encodePeering, PEERING_PORT, type PeeringMessage } from '../../../core/peering/message.ts';
import { CLIENT, GATEWAY, type ResourceSites } from '../../sim/resource-sites.ts';
import { udp } from '../fastpath/packets.ts';

/**
 * Makes the client of the simulation one whose machine sends what it likes: it takes neither its own address
 * nor the gateway's for those of a daemon, so that nothing of it is guarded, held or translated.
 */
export function makeHostile(sites: ResourceSites): void {
  sites.client.configure({
    interface: { addresses: ['100.64.9.9/32', 'fd00::9:9/128'] },
    peers: [
      {
        id: 'gateway',
        publicKey: sites.gateway.publicKey,
        kind: 'culvert',
        endpoint: '192.0.2.2:51820',
        allowedIps: ['100.64.8.8/32', 'fd00::8:8/128', '0.0.0.0/0', '::/0'],
      },
    ],
  });
  sites.advance(5000);
}

/** Sends a message as the daemon of the client would. */
export function forge(sites: ResourceSites, message: PeeringMessage): void {
  sites.send(
    'client',
    udp({
      source: CLIENT.ipv4,
      destination: GATEWAY.ipv4,
      sourcePort: PEERING_PORT,
      destinationPort: PEERING_PORT,
      payload: encodePeering(message),
    }),
  );
}

/** Takes what the gateway said to the daemon of the client about names. */
export function statuses(sites: ResourceSites): readonly string[] {
  return sites
    .seen('client')
    .filter(
      ({ protocol, destinationPort }) => protocol === 'udp' && destinationPort === PEERING_PORT,
    )
    .map(({ payload }) => {
      const text = new TextDecoder().decode(Uint8Array.from(payload.slice(8)));
      return String((JSON.parse(text) as { readonly status?: string }).status);
    });
}
