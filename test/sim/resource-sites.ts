import type { Links } from '../../core/plugin/links.ts';
import { ok } from '../../core/sansio/outcome.ts';
import type { Millis } from '../../core/sansio/instant.ts';
import { MemoryNetwork } from '../memory/datagrams.ts';
import { plainRead } from '../core/fastpath/packets.ts';
import { address, Site } from './site.ts';
import { VirtualTime } from './virtual-time.ts';

export const START_UNIX_MS = Date.UTC(2026, 0, 1);

/** The addresses of the two routers in the tunnel. */
export const CLIENT = { ipv4: '100.64.0.1', ipv6: 'fd00::1' };
export const GATEWAY = { ipv4: '100.64.0.2', ipv6: 'fd00::2' };

/** Parts of the configuration of the two sites. */
export interface ResourceDocuments {
  readonly resources: readonly object[];
  readonly authorizations: readonly object[];
  /** More of the client's and of the gateway's document. */
  readonly client?: object;
  readonly gateway?: object;
}

/**
 * Two sites with real engines: hosts behind the client use what the gateway serves. `lan` of each is what its
 * own hosts see: packets that came out of the TUN of the router.
 */
export class ResourceSites {
  readonly time = new VirtualTime(START_UNIX_MS);
  readonly network = new MemoryNetwork();
  readonly client: Site;
  readonly seed: number;
  gateway: Site;
  #documents: ResourceDocuments;

  constructor(seed: number, documents: ResourceDocuments) {
    this.seed = seed;
    this.#documents = documents;
    this.client = this.#site(seed + 1, '192.0.2.1');
    this.gateway = this.#site(seed + 2, '192.0.2.2');
    this.configure(documents);
    this.advance(2000);
  }

  /** Gives both sites other documents. */
  configure(documents: ResourceDocuments): void {
    this.#documents = documents;
    this.client.configure(this.#clientDocument());
    this.gateway.configure(this.#gatewayDocument());
  }

  /** Starts the gateway anew, with what it had on flash. */
  restartGateway(): void {
    this.gateway.kill();
    const { zone } = this.gateway.names;
    this.gateway = this.#site(this.seed + 2, '192.0.2.2', 1);
    this.gateway.names.zone = zone;
    this.gateway.configure(this.#gatewayDocument());
  }

  advance(ms: Millis): void {
    this.time.advance(ms, () => this.network.deliver());
  }

  /** A host of the client's LAN looks a name up; returns the addresses that it is answered. */
  lookUp(name: string, type: 'A' | 'AAAA' = 'A'): readonly string[] {
    const id = this.client.names.ask(type, name);
    this.advance(1);
    const answer = this.client.names.answers.get(id);
    return (answer?.answers ?? []).flatMap((it) => (it.type === type ? [it.data] : []));
  }

  /** Has a host behind a router send a packet into the tunnel. */
  send(from: 'client' | 'gateway', packet: Uint8Array): void {
    this[from].tun.send(plainRead(packet));
    this[from].tun.report();
    this.advance(20);
  }

  /** Takes the packets that came out of the tunnel of a router. */
  received(at: 'client' | 'gateway'): readonly Uint8Array[] {
    return this[at].tun.received.splice(0).map((written) => written.subarray(10));
  }

  #clientDocument(): object {
    const { resources, client } = this.#documents;
    return {
      interface: { addresses: [`${CLIENT.ipv4}/32`, `${CLIENT.ipv6}/128`] },
      peers: [peerDocument('gateway', this.gateway.publicKey, '192.0.2.2', GATEWAY)],
      resources: resources.map((resource) => ({ ...resource, gateways: ['gateway'] })),
      site: { lans: ['br-lan'] },
      dns: { mode: 'redirect' },
      ...client,
    };
  }

  #gatewayDocument(): object {
    const { resources, authorizations, gateway } = this.#documents;
    return {
      interface: { addresses: [`${GATEWAY.ipv4}/32`, `${GATEWAY.ipv6}/128`] },
      peers: [peerDocument('client', this.client.publicKey, '192.0.2.1', CLIENT)],
      resources,
      authorizations,
      ...gateway,
    };
  }

  #site(seed: number, outer: string, restarts = 0): Site {
    const links: Links = {
      apply: () => ({ ...ok({ changes: 0 }), failures: [] }),
      localAddresses: () => [address(outer)],
      clear: () => undefined,
      monitor: () => () => undefined,
    };
    const { time, network } = this;
    return new Site({ time, network, seed, restarts, address: outer, links });
  }
}

function peerDocument(id: string, publicKey: string, outer: string, own: typeof CLIENT): object {
  return {
    id,
    publicKey,
    kind: 'culvert',
    endpoint: `${outer}:51820`,
    allowedIps: [`${own.ipv4}/32`, `${own.ipv6}/128`],
  };
}
