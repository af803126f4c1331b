import { lookup, type LookupAddress } from 'node:dns';
import { connect, isIP, type LookupFunction, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { Endpoint } from '../../core/config/endpoint.ts';
import type { Log } from '../../core/sansio/log.ts';

/** Servers whose TLS sessions are kept: more than are configured. Beyond, the oldest is forgotten. */
const MOST_SESSIONS = 32;

/** Begins connections. Who wants them limits their time. */
export class Dialler {
  readonly #log: Log;
  readonly #authorities: readonly string[] | undefined;
  /** By id of the server; each serves for one connection (RFC 8446 §C.4). */
  readonly #sessions = new Map<string, Buffer>();
  /** What was logged: each once until it is well. */
  readonly #distrusted = new Map<string, string>();
  readonly #lookups = new Map<string, LookUpDone[]>();

  constructor(log: Log, authorities: readonly string[] | undefined) {
    this.#log = log;
    this.#authorities = authorities;
  }

  tcp({ host, port }: Endpoint): Socket {
    return connect({ host, port, noDelay: true });
  }

  /** The certificate must be for the host. `protocol` is what else the server must agree to (RFC 7301). */
  tls(upstream: string, { host, port }: Endpoint, protocol?: string): TLSSocket {
    const session = this.#sessions.get(upstream);
    this.#sessions.delete(upstream);
    const socket = connectTls({
      host,
      port,
      lookup: this.#lookup,
      minVersion: 'TLSv1.2',
      // RFC 6066 §3: an address is no server name.
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(protocol === undefined ? {} : { ALPNProtocols: [protocol] }),
      ...(session === undefined ? {} : { session }),
      ...(this.#authorities === undefined ? {} : { ca: [...this.#authorities] }),
    });
    socket.setNoDelay();
    socket.on('session', (ticket: Buffer) => remember(this.#sessions, upstream, ticket));
    socket.once('secureConnect', () => this.#distrusted.delete(upstream));
    socket.once('close', () => this.#onClosed(upstream, socket));
    return socket;
  }

  #onClosed(upstream: string, { authorizationError }: TLSSocket): void {
    // The types say Error; it is the code of one, or null.
    const why = authorizationError as unknown;
    if (typeof why !== 'string' || this.#distrusted.get(upstream) === why) return;
    remember(this.#distrusted, upstream, why);
    this.#log.warn('certificate of a dns server is not trusted', { why });
  }

  /**
   * By the system's resolver, whose thread cannot be stopped while it waits: so one a name, whoever asks.
   */
  readonly #lookup: LookupFunction = (host, { all: wantsAll }, done) => {
    const onDone: LookUpDone = (error, addresses) => {
      const [first] = addresses ?? [];
      if (wantsAll === true || first === undefined) done(error, addresses ?? []);
      else done(error, first.address, first.family);
    };
    const waiting = this.#lookups.get(host);
    if (waiting !== undefined) {
      waiting.push(onDone);
      return;
    }
    const joined = [onDone];
    this.#lookups.set(host, joined);
    lookup(host, { all: true }, (error, addresses) => {
      this.#lookups.delete(host);
      for (const one of joined) one(error, addresses);
    });
  };
}

type LookUpDone = (
  error: NodeJS.ErrnoException | null,
  addresses: LookupAddress[] | undefined,
) => void;

function remember<Value>(map: Map<string, Value>, upstream: string, value: Value): void {
  map.set(upstream, value);
  const [oldest] = map.keys();
  if (oldest !== undefined && map.size > MOST_SESSIONS) map.delete(oldest);
}
