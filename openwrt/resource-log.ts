import type { Event } from '../core/engine/event.ts';
import type { Log } from '../core/sansio/log.ts';
import { unreachable } from '../core/sansio/outcome.ts';

const TYPES = [
  'dns-intercepting',
  'dns-not-intercepted',
  'dns-not-listening',
  'upstream-dead',
  'upstream-alive',
  'proxies-exhausted',
  'resource-failed',
  'authorization-ended',
  'address-changed',
  'ruleset-failed',
] as const;

/** What is told of resources and names. */
type ResourceEvent = Extract<Event, { readonly type: (typeof TYPES)[number] }>;

export function isResourceEvent(event: Event): event is ResourceEvent {
  const types: readonly Event['type'][] = TYPES;
  return types.includes(event.type);
}

/** Writes the line that it deserves. Names of resources and their addresses stay below `info`. */
export function logResourceEvent(log: Log, event: ResourceEvent): void {
  switch (event.type) {
    case 'dns-intercepting':
      return log.info('names of resources are answered', { mode: event.mode });
    case 'dns-not-intercepted': {
      const { mode, why, detail } = event;
      const effect = 'names of resources are not known to the LAN, all others as before';
      return log.warn('queries of the LAN do not come to us', { mode, cause: why, detail, effect });
    }
    case 'dns-not-listening':
      return log.warn('no queries are taken', { cause: event.why, address: event.address });
    case 'upstream-dead':
      return log.warn('DNS server does not answer', { server: event.upstream });
    case 'upstream-alive':
      return log.info('DNS server answers again', { server: event.upstream });
    case 'proxies-exhausted':
      return log.warn('all addresses for names are taken', {
        names: event.capacity,
        cure: 'give dns.proxies wider ranges at both ends',
      });
    case 'resource-failed': {
      const { peer, resource, why } = event;
      return log.info('resource cannot be used', { peer, resource, why });
    }
    case 'authorization-ended': {
      const { peer, resource, why } = event;
      return log.info('authorization ended', { peer, resource, why });
    }
    case 'address-changed': {
      const { peer, domain, proxyIp, oldIp, newIp } = event;
      return log.debug('name has another address', { peer, domain, proxyIp, oldIp, newIp });
    }
    case 'ruleset-failed':
      return log.warn('packet filter is not as it should be', {
        failures: event.failures.map(({ path, why }) => `${path}: ${why}`),
        effect: 'hosts of the LAN may not answer peers',
      });
    default:
      return unreachable(event);
  }
}
