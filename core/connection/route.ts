import type { SocketAddress } from '../net/socket-address.ts';
import type { Source } from '../net/source.ts';
import type { StreamId } from '../plugin/streams.ts';
import { frame } from '../stun/stream-framing.ts';
import { encodeChannelData } from '../turn/channel-data.ts';

/** How a datagram to a peer leaves this machine. */
export interface Route {
  /** Who gets it from us: the peer, or the relay in between. */
  readonly remote: SocketAddress;
  /** Where it leaves from; without it the kernel chooses. */
  readonly source?: Source;
  /** The stream that carries it in place of the UDP socket. */
  readonly stream?: StreamId;
  /** The channel of the relay (RFC 8656 §12) in whose header it is wrapped. */
  readonly channel?: number;
}

/** A datagram for a peer or a relay, in the form in which its route carries it. */
export interface ConnectionTransmit {
  readonly route: Route;
  readonly payload: Uint8Array;
}

/** Puts a datagram into the form in which its route carries it. */
export function wrap(payload: Uint8Array, { channel, stream }: Route): Uint8Array {
  if (channel !== undefined) {
    return encodeChannelData({ channel, payload }, stream === undefined ? 'udp' : 'stream');
  }
  return stream === undefined ? payload : frame(payload);
}
