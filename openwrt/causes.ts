import type { ConnectionFailure, SelectionReason } from '../core/connection/connection.ts';
import { ICE_TIMEOUT } from '../core/ice/constants.ts';
import type { RelayFailure } from '../core/connection/relay.ts';
import type { PathLoss } from '../core/engine/event.ts';
import type { UnservedCause, UnusableCause } from '../core/engine/resource-status.ts';
import type { GoodbyeReason } from '../core/peering/message.ts';
import type { SetupFailure } from '../core/peering/resource-setups.ts';
import type { ListenFailure } from '../core/plugin/datagrams.ts';
import type { InterceptionFailure } from '../core/plugin/dns-interception.ts';
import type { HandshakeFailure } from '../core/wireguard/outputs.ts';

/** What a cause means to a person, and what there is to be done about it. */
export interface Cause {
  readonly meaning: string;
  readonly cure?: string;
}

const PATH_CAUSES: Readonly<Record<SelectionReason, Cause>> = {
  first: { meaning: 'the first that answered' },
  better: { meaning: 'more direct or faster than the one before' },
  silence: { meaning: 'the one before fell silent' },
  'nominated by the peer': { meaning: 'the peer chose it' },
  'base removed': { meaning: 'the one before lost its address, stream or relay' },
};

const NO_PATH_CAUSES: Readonly<Record<ConnectionFailure, Cause>> = {
  'no-candidates': {
    meaning: 'nothing is known of where the peer is',
    cure: 'is the peer in the fleet and connected to the broker? else it needs an endpoint',
  },
  'no-answer': {
    meaning: 'no path answered',
    cure: 'is the peer running? where neither side can be reached, a relay is needed (relays)',
  },
  'path-lost': {
    meaning: 'the path fell silent and no other one answered',
    cure: 'is the peer running and connected to the Internet?',
  },
  'no-session': {
    meaning: 'there is a path, but WireGuard came to no session on it',
    cure: 'compare the publicKey of each side in the configuration of the other',
  },
  'preshared-key-differs': {
    meaning: 'the preshared keys differ',
    cure: 'give both sides the same presharedKey',
  },
  'cookies-only': { meaning: 'the peer is under load and answered with cookies alone' },
};

const NO_SESSION_CAUSES: Readonly<
  Record<Exclude<HandshakeFailure, ConnectionFailure> | 'key-mismatch', Cause>
> = {
  'no-response': {
    meaning: 'no answer to handshakes',
    cure: 'is the peer running, at this endpoint, with its port open? compare the publicKey of each side in the configuration of the other',
  },
  'key-mismatch': {
    meaning: 'what is signalled in its name does not open',
    cure: 'compare its publicKey in the configuration with what culvert keygen prints there, and ours with what it has',
  },
};

const GOODBYE_CAUSES: Readonly<Record<GoodbyeReason, Cause>> = {
  restarting: { meaning: 'it said goodbye: it restarts' },
  leaving: { meaning: 'it said goodbye: it was stopped', cure: 'start the peer again' },
  revoked: {
    meaning: 'it said goodbye: its configuration has us no more, or nothing that we may use',
    cure: 'is this device still among the peers of the other one, and authorized for something there?',
  },
};

const DISMISSED: Cause = {
  meaning: 'its last authorization here ended, and it was told so',
  cure: 'authorize it for a resource of this site again',
};

const CAUSES = new Map<string, Cause>([
  ...Object.entries({ ...PATH_CAUSES, ...NO_PATH_CAUSES, ...NO_SESSION_CAUSES }),
  ['dismissed', DISMISSED],
  ...Object.entries(GOODBYE_CAUSES).map(
    ([reason, cause]) => [`said goodbye: ${reason}`, cause] as const,
  ),
]);

/** Why a peer is reached as it is, or is not: `PeerStatus.cause`, or `why` of its path. */
export function peerCause(cause: string): Cause {
  return CAUSES.get(cause) ?? { meaning: cause };
}

/** What became of the last path to a peer. */
export const PATH_LOSSES: Readonly<Record<PathLoss, string>> = {
  silence: `silent for ${ICE_TIMEOUT / 1000} s`,
  'base removed': 'it lost its address, stream or relay',
};

const NO_RELAY_CAUSES: Readonly<Record<RelayFailure, Cause>> = {
  'not-resolved': {
    meaning: 'its name does not resolve',
    cure: 'check the name of the relay and the resolver of this router',
  },
  'not-reachable': {
    meaning: 'no connection to it',
    cure: 'does it run, and does its firewall let TCP to this port in?',
  },
  'no-response': {
    meaning: 'it does not answer',
    cure: 'does it run, and does its firewall let this port in? where UDP is blocked: turn:…?transport=tcp or turns:',
  },
  'no-answer': {
    meaning: 'it does not answer',
    cure: 'does it run, and does its firewall let this port in?',
  },
  'wrong-credentials': {
    meaning: 'it refuses our login',
    cure: 'check username and credential, or secret and the clocks of both sides',
  },
  'held-by-another-login': {
    meaning: 'it still holds our port for an earlier login',
    cure: 'none needed: that ends by itself within 10 minutes',
  },
  'quota-reached': {
    meaning: 'it allows this user no more allocations',
    cure: 'raise its user-quota',
  },
  'out-of-capacity': {
    meaning: 'it has no room',
    cure: 'raise its total-quota or its range of ports, or add another relay',
  },
  refused: { meaning: 'it refuses', cure: 'see its log' },
  closed: { meaning: 'it closed the connection' },
};

/** Why no streams are accepted. */
export const STREAMS_CAUSES: Readonly<Record<ListenFailure, Cause>> = {
  'port-taken': {
    meaning: 'another program has the port',
    cure: 'choose a streams.listenPort that is free, and redirect publicPort to it',
  },
  'not-permitted': {
    meaning: 'the system does not permit it',
    cure: 'run the daemon as root, or choose a streams.listenPort above 1023',
  },
  refused: { meaning: 'the system refuses the port' },
};

/** Why a relay cannot be used. */
export const RELAY_CAUSES: Readonly<Record<string, Cause | undefined>> = NO_RELAY_CAUSES;

/** Why a resource cannot be used: of a peer, or ours by peers. */
export const RESOURCE_CAUSES: Readonly<Record<UnusableCause | UnservedCause, Cause>> = {
  'dns-off': {
    meaning: 'its names are not answered: dns.mode is off',
    cure: 'set dns.mode to redirect or dnsmasq',
  },
  'dns-starting': { meaning: 'its names are not answered yet' },
  'dns-failed': { meaning: 'its names are not answered', cure: 'see: culvert dns' },
  'no-gateway': { meaning: 'no gateway of it is connected', cure: 'see: culvert paths' },
  refused: {
    meaning: 'the gateway refuses all names that it was asked for',
    cure: 'there: has a resource this id and pattern, is this device still authorized, are dns.proxies the same?',
  },
  'no-answer': {
    meaning: 'the gateway does not answer when it is asked for names',
    cure: 'does it run a Culvert that serves resources? see its log',
  },
  'nobody-authorized': {
    meaning: 'no peer may use it',
    cure: 'name peers and this resource in authorizations; is expiresAt over?',
  },
  'not-masqueraded': {
    meaning: 'the packet filter refused our table: hosts of the site may not answer peers',
    cure: 'see the log: nf_tables with NAT is needed, and the right to change it',
  },
};

/** Why one name of a resource cannot be used. */
export const NAME_CAUSES: Readonly<Record<SetupFailure, string>> = {
  refused: 'the gateway refuses it',
  'not-resolved': 'the gateway finds no address of it in its site',
  'no-answer': 'the gateway did not answer',
};

const NO_NAME_CURES: Readonly<Record<SetupFailure, string>> = {
  refused: 'at the gateway: is this device authorized for the resource?',
  'not-resolved': 'does the resolver of the site know the name?',
  'no-answer': 'is the gateway running and connected? see: culvert paths',
};

/** What there is to be done about it. */
export const NAME_CURES: Readonly<Record<string, string | undefined>> = NO_NAME_CURES;

const NO_DNS_CAUSES: Readonly<Record<InterceptionFailure['why'] | ListenFailure, Cause>> = {
  'port-taken': {
    meaning: 'another program has the port',
    cure: 'choose a dns.listenPort that is free',
  },
  'not-permitted': {
    meaning: 'the system does not permit it',
    cure: 'run the daemon as root',
  },
  'no-answer': {
    meaning: 'our listener did not answer when it was tried',
    cure: 'have the interfaces of site.lans addresses, and is dns.listenPort open there?',
  },
  'no-dnsmasq': {
    meaning: 'there is no dnsmasq that could ask us',
    cure: 'set dns.mode to redirect; on OpenWrt it can be installed, too',
  },
  refused: {
    meaning: 'the system refuses it',
    cure: 'if it goes on, set dns.mode to the other one of redirect and dnsmasq',
  },
};

/** Why queries of the LAN do not come to us. */
export const DNS_CAUSES: Readonly<Record<string, Cause | undefined>> = NO_DNS_CAUSES;
