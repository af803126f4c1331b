import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import { socketAddress } from '../../core/net/socket-address.ts';
import { parseIpAddress, type IpAddress } from '../../core/net/ip-address.ts';
import type { ListenFailure } from '../../core/plugin/datagrams.ts';
import type { DnsQuery } from '../../core/plugin/dns-listener.ts';
import type { Log } from '../../core/sansio/log.ts';
import type { Place } from './places.ts';
import { listenFailure } from './problem.ts';

/**
 * A UDP socket at one address. The `source` of its clients is `<number> <port> <host>`: all that an
 * answer needs, so nothing is kept of a query.
 */
export class UdpPlace {
  readonly number: number;
  readonly #place: Place;
  readonly #log: Log;
  readonly #socket: Socket;
  readonly #onQuery: (query: DnsQuery) => void;

  constructor(number: number, place: Place, log: Log, onQuery: (query: DnsQuery) => void) {
    this.number = number;
    this.#place = place;
    this.#log = log;
    this.#onQuery = onQuery;
    // Not `reuseAddr`: UDP ports are free at once, and with it we would take the queries of a resolver
    // that holds this one and sets it too, as dnsmasq does.
    const family = isIPv6(place.host) ? 6 : 4;
    this.#socket = createSocket({
      type: family === 6 ? 'udp6' : 'udp4',
      ipv6Only: family === 6,
      recvBufferSize: RECEIVE_BUFFER,
      // All hosts are addresses. The default would put each answer off to a later turn.
      lookup: (host, _options, found) => found(null, host, family),
    });
  }

  open(): Promise<ListenFailure | undefined> {
    const socket = this.#socket;
    return new Promise((resolve) => {
      socket.once('error', (error) => resolve(listenFailure(error)));
      socket.bind({ port: this.#place.port, address: this.#place.host, exclusive: true }, () => {
        socket.removeAllListeners('error');
        // An answer that cannot be sent, such as to a network that is gone, is its client's loss only.
        socket.on('error', ({ message }) => this.#log.debug('not sent', { error: message }));
        socket.on('message', (bytes, remote) => this.#receive(bytes, remote));
        resolve(undefined);
      });
    });
  }

  respond(source: string, bytes: Uint8Array): void {
    // The kernel is full: a client asks again, and the next answers are not late too.
    if (this.#socket.getSendQueueSize() > MOST_UNSENT) return;
    const port = source.indexOf(' ') + 1;
    const host = source.indexOf(' ', port) + 1;
    this.#socket.send(bytes, Number(source.slice(port, host - 1)), source.slice(host));
  }

  close(): void {
    this.#socket.close();
  }

  #receive(bytes: Uint8Array, { address, port, family }: RemoteInfo): void {
    const ip = family === 'IPv4' ? (address as IpAddress) : withoutZone(address);
    // Nobody can be answered at port 0 (RFC 768 leaves it to those who expect no answer).
    if (ip === undefined || port === 0) return;
    this.#onQuery({
      client: { source: `${this.number} ${port} ${address}`, transport: 'udp' },
      remote: socketAddress(ip, port),
      local: this.#place.address,
      bytes,
    });
  }
}

/** Bytes; what comes while the event loop does something else, as far as the system allows it. */
const RECEIVE_BUFFER = 1 << 20;
/** Bytes of answers that the kernel has not taken. */
const MOST_UNSENT = 1 << 20;

/** The kernel names the interface of a link-local address, which `SocketAddress` has no place for. */
function withoutZone(address: string): IpAddress | undefined {
  const zone = address.indexOf('%');
  const ip = parseIpAddress(zone < 0 ? address : address.slice(0, zone));
  return ip.ok ? ip.value : undefined;
}
