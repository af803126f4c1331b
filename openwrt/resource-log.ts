import { SITE_DNS_PORT } from '../core/dns/numbers.ts';
import type { Event } from '../core/engine/event.ts';
import type { AssignmentRefusal } from '../core/engine/gateway-side.ts';
import type { Log } from '../core/sansio/log.ts';
import { unreachable } from '../core/sansio/outcome.ts';
import { DNS_CAUSES, NAME_CURES } from './causes.ts';

const TYPES = [
  'dns-intercepting',
  'dns-not-intercepted',
  'dns-not-listening',
  'upstream-dead',
  'upstream-alive',
  'proxies-exhausted',
  'resource-failed',
  'assignment-refused',
  'authorization-ended',
  'address-changed',
  'ruleset-failed',
] as const;

const REFUSAL_CURES: Readonly<Record<AssignmentRefusal, string>> = {
  'unknown-resource': 'no resource of this id is served here: give it the same id at both ends',
  'no-authorization': 'authorize the peer for it (authorizations)',
  'other-name': 'the name matches none of its patterns here: compare them at both ends',
  'other-proxies': 'give both ends the same dns.proxies',
};

/** What is told of resources and names. */
type ResourceEvent = Extract<Event, { readonly type: (typeof TYPES)[number] }>;

export function isResourceEvent(event: Event): event is ResourceEvent {
  const types: readonly Event['type'][] = TYPES;
  return types.includes(event.type);
}

/** Writes the line that it deserves. Names that are resolved and addresses stay below `info`. */
export function logResourceEvent(log: Log, event: ResourceEvent): void {
  switch (event.type) {
    case 'dns-intercepting':
      return log.info('names of resources are answered', { mode: event.mode });
    case 'dns-not-intercepted':
      return logNotIntercepted(log, event);
    case 'dns-not-listening': {
      const { address, why } = event;
      log.warn('no queries are taken', { cause: why, cure: listeningCure(event) });
      return log.debug('queries are not taken at', { address, why });
    }
    case 'upstream-dead':
      log.warn('DNS server does not answer', {
        cure: 'culvert dns tells which one: is it running, and reachable from here?',
      });
      return log.debug('DNS server is dead', { server: event.upstream });
    case 'upstream-alive':
      log.info('DNS server answers again');
      return log.debug('DNS server is alive', { server: event.upstream });
    case 'proxies-exhausted':
      return log.warn('all addresses for names are taken', {
        names: event.capacity,
        takenBack: event.removed,
        cure: 'give dns.proxies wider ranges at both ends',
      });
    case 'resource-failed': {
      const { peer, resource, why } = event;
      return log.info('resource cannot be used', { peer, resource, why, cure: NAME_CURES[why] });
    }
    case 'assignment-refused': {
      const { peer, resource, why } = event;
      const cure = REFUSAL_CURES[why];
      return log.info('a peer may not use a resource', { peer, resource, why, cure });
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
      return logRuleset(log, event);
    default:
      return unreachable(event);
  }
}

function logNotIntercepted(
  log: Log,
  { mode, why, detail }: Extract<ResourceEvent, { readonly type: 'dns-not-intercepted' }>,
): void {
  // What dnsmasq complains of are its words, which may name hosts.
  const isForeign = mode === 'dnsmasq' && why === 'refused';
  log.warn('queries of the LAN do not come to us', {
    mode,
    cause: why,
    detail: isForeign ? undefined : detail,
    cure: DNS_CAUSES[why]?.cure,
    effect: 'names of resources are not known to the LAN, all others as before',
  });
  if (isForeign) log.debug('dnsmasq complains', { detail });
}

function listeningCure({
  address,
  why,
}: Extract<ResourceEvent, { readonly type: 'dns-not-listening' }>): string | undefined {
  const isForPeers = address.endsWith(`:${SITE_DNS_PORT}`);
  if (why === 'port-taken' && isForPeers) {
    return `stop the program that has UDP or TCP port ${SITE_DNS_PORT}: peers ask there`;
  }
  if (why === 'refused') return 'has this machine the address still? it is tried again';
  return DNS_CAUSES[why]?.cure;
}

function logRuleset(
  log: Log,
  { failures }: Extract<ResourceEvent, { readonly type: 'ruleset-failed' }>,
): void {
  const lines = failures.map(({ path, why }) => `${path}: ${why}`);
  log.warn('packet filter is not as it should be', {
    failures: lines.map((line) => line.replace(/^element .*? of /, 'element of ')),
    cure: 'install nf_tables with NAT (OpenWrt: kmod-nft-nat), and run the daemon as root',
    effect: 'hosts of the LAN may not answer peers',
  });
  log.debug('packet filter refuses', { failures: lines });
}
