import type { ConnectionFailure, SelectionReason } from '../core/connection/connection.ts';
import type { RelayFailure } from '../core/connection/relay.ts';

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
  'path-lost': { meaning: 'the path fell silent and no other one answered' },
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

/** Why a peer is reached as it is, or is not. */
export const PEER_CAUSES: Readonly<Record<string, Cause | undefined>> = {
  ...PATH_CAUSES,
  ...NO_PATH_CAUSES,
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

/** Why a relay cannot be used. */
export const RELAY_CAUSES: Readonly<Record<string, Cause | undefined>> = NO_RELAY_CAUSES;
