import type { Flow } from '../fastpath/flow.ts';
import { isIcmpErrorFlow } from '../nat/icmp-translation.ts';
import { isIcmpProtocol } from '../nat/tuple.ts';
import { ipAddressFromBytes } from '../net/ip-address.ts';
import { prefixContains, type IpPrefix } from '../net/ip-prefix.ts';
import type { Authorization, Authorizations } from './authorizations.ts';
import { isPermitted } from './filter.ts';
import type { Resource } from './resource.ts';
import { ResourceTable } from './resource-table.ts';
import { isInternetAddress } from './special-ranges.ts';

/** Why a flow is denied: one of few, to be counted under. */
export type Denial =
  | 'no-authorization'
  /** There is one for the address, and not for this protocol, port or source. */
  | 'filtered'
  /** The internet resource does not lead to private and special addresses. */
  | 'special-address';

export type Decision =
  | { readonly type: 'allowed'; readonly resource: string }
  | {
      readonly type: 'denied';
      readonly reason: Denial;
      readonly icmp: 'administratively-prohibited';
    };

/**
 * Decides which flows between peers and resources may pass. It does so once per flow; who remembers it asks
 * again when resources or authorizations change.
 *
 * Resources are tried from the most specific on, and the first that permits the flow is it: a wide
 * authorization is not made smaller by a narrow one.
 */
export class Access {
  readonly #authorizations: Authorizations;
  #resources = new ResourceTable<Resource>([]);

  constructor(authorizations: Authorizations) {
    this.#authorizations = authorizations;
  }

  /** Replaces all resources. */
  setResources(resources: readonly Resource[]): void {
    this.#resources = new ResourceTable(resources);
  }

  resource(id: string): Resource | undefined {
    return this.#resources.get(id);
  }

  /** Decides about a flow from the peer; `resource` is what its destination stands for, if that is a proxy. */
  decideRequest(peer: string, flow: Flow, resource?: string): Decision {
    return this.#decide(peer, flow, resource, false);
  }

  /**
   * Decides about a flow to the peer by the one that it answers. `resource` is that of its session, if it
   * has one. An ICMP error is no answer, and passes if the peer may use anything there at all.
   */
  decideReply(peer: string, flow: Flow, resource?: string): Decision {
    return this.#decide(peer, reversed(flow), resource, isIcmpErrorFlow(flow));
  }

  #decide(peer: string, flow: Flow, proxied: string | undefined, isUnfiltered: boolean): Decision {
    const grants = this.#authorizations.of(peer);
    let reason: Denial = 'no-authorization';
    if (grants === undefined) return denied(reason);
    for (const resource of this.#candidates(flow, proxied)) {
      const grant = grants.get(resource.id);
      if (grant === undefined) continue;
      if (resource.type === 'internet' && !isInternetAddress(flow.destination)) {
        if (reason === 'no-authorization') reason = 'special-address';
      } else if (isUnfiltered || doesPermit(resource, grant, flow)) {
        return { type: 'allowed', resource: resource.id };
      } else {
        reason = 'filtered';
      }
    }
    return denied(reason);
  }

  /** Returns what the destination may be, the most specific first. */
  *#candidates(flow: Flow, proxied: string | undefined): Iterable<Resource> {
    if (proxied !== undefined) {
      const resource = this.#resources.get(proxied);
      if (resource !== undefined) yield resource;
      return;
    }
    yield* this.#resources.around(flow);
    yield* this.#resources.internet;
  }
}

function doesPermit(resource: Resource, grant: Authorization, flow: Flow): boolean {
  return (
    isPermitted(resource.filters, flow) &&
    isPermitted(grant.filters, flow) &&
    (grant.sources === undefined || isFrom(grant.sources, flow))
  );
}

function isFrom(sources: readonly IpPrefix[], flow: Flow): boolean {
  const source = ipAddressFromBytes(flow.source);
  return sources.some((prefix) => prefixContains(prefix, source));
}

/** Returns the flow that this one answers. */
function reversed(flow: Flow): Flow {
  const { source, destination, sourcePort, destinationPort } = flow;
  const turned = { ...flow, source: destination, destination: source };
  // Of ICMP these are identifier and type.
  if (isIcmpProtocol(flow.protocol)) return turned;
  return { ...turned, sourcePort: destinationPort, destinationPort: sourcePort };
}

function denied(reason: Denial): Decision {
  return { type: 'denied', reason, icmp: 'administratively-prohibited' };
}
