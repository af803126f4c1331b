import { TUNNEL_MTU } from '../contestants/contestant.ts';

const TRANSPORT_HEADER_AND_TAG = 32;

/** Bytes: as long as what a full packet of the tunnel becomes. */
export const FULL_LENGTH = TUNNEL_MTU + TRANSPORT_HEADER_AND_TAG;

/** Where the peer of the allocation is. */
export const PEER_PORT = 9000;
