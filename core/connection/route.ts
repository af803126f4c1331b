import type { SocketAddress } from '../net/socket-address.ts';
import type { Source } from '../net/source.ts';
import type { StreamId } from '../plugin/streams.ts';

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
