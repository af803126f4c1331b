import type { ListenFailure } from '../../core/plugin/datagrams.ts';
import type { Native } from '../../core/plugin/native.ts';
import type {
  DialTarget,
  StreamEvent,
  StreamId,
  StreamListenOptions,
  Streams,
} from '../../core/plugin/streams.ts';
import type { Log } from '../../core/sansio/log.ts';
import { BugError, failed, type Outcome } from '../../core/sansio/outcome.ts';
import { Dial } from './dial.ts';
import { addressOf, Listener, type Accepted } from './listener.ts';
import { OpenStream, type Carrier } from './open-stream.ts';
import { TcpSockets } from './tcp-sockets.ts';

/** Dials at the same time: further ones are closed at once. */
export const MOST_DIALLING = 64;

type Stream =
  | { readonly type: 'dialling'; readonly dial: { abort(): void } }
  | { readonly type: 'open'; readonly open: OpenStream };

/** TCP, TLS and WebSocket by Node.js, dialled, accepted and through HTTP proxies. */
export class StreamTransport implements Streams {
  readonly #tcp: TcpSockets;
  readonly #listener: Listener;
  readonly #streams = new Map<StreamId, Stream>();
  /** Open ones, and closed ones that still have bytes to get rid of. */
  readonly #alive = new Set<OpenStream>();
  #dialling = 0;
  #lastAccepted = -1;
  #onEvent: (event: StreamEvent) => void = () => undefined;

  /** Without a native file, sockets are not marked. */
  constructor(native: Native | undefined, log: Log) {
    this.#tcp = new TcpSockets(native, log);
    this.#listener = new Listener(this.#tcp, log, (accepted) => this.#onAccepted(accepted));
  }

  listenTo(onEvent: (event: StreamEvent) => void): void {
    this.#onEvent = onEvent;
  }

  dial(stream: StreamId, target: DialTarget): void {
    if (this.#streams.has(stream)) throw new BugError(`stream ${stream} is dialled twice`);
    const onDone = (outcome: Outcome<Carrier>): void => {
      this.#dialling--;
      if (outcome.ok) this.#onDialled(stream, outcome.value);
      else this.#onClosed(stream, outcome.why);
    };
    const dial =
      this.#dialling >= MOST_DIALLING ? refuseLater(onDone) : new Dial(target, this.#tcp, onDone);
    this.#dialling++;
    this.#streams.set(stream, { type: 'dialling', dial });
  }

  listen(options: StreamListenOptions | undefined): Promise<Outcome<void, ListenFailure>> {
    return this.#listener.move(options);
  }

  send(id: StreamId, bytes: Uint8Array): boolean {
    const stream = this.#streams.get(id);
    return stream?.type === 'open' && stream.open.send(bytes);
  }

  close(id: StreamId): void {
    const stream = this.#streams.get(id);
    this.#streams.delete(id);
    if (stream?.type === 'open') stream.open.close();
    if (stream?.type !== 'dialling') return;
    this.#dialling--;
    stream.dial.abort();
  }

  get waiting(): number {
    let waiting = 0;
    for (const stream of this.#alive) waiting += stream.waiting;
    return waiting;
  }

  /** Ends everything at once; what waits is lost. */
  stop(): void {
    for (const id of this.#streams.keys()) this.close(id);
    for (const stream of this.#alive) stream.destroy();
    this.#listener.stop();
  }

  #onDialled(stream: StreamId, carrier: Carrier): void {
    const { localAddress, localPort } = carrier.socket;
    const local = addressOf(localAddress, localPort);
    // It may have ended with the very bytes that opened it.
    if (local === undefined || carrier.socket.destroyed) {
      carrier.socket.destroy();
      this.#onClosed(stream, 'closed by the other side');
      return;
    }
    this.#open(stream, carrier);
    this.#onEvent({ type: 'opened', stream, local });
  }

  #onAccepted({ protocol, local, remote, ...carrier }: Accepted): void {
    const stream = (this.#lastAccepted += 2);
    this.#open(stream, carrier);
    this.#onEvent({ type: 'accepted', stream, protocol, local, remote });
  }

  /** No event of the stream comes before this turn of the event loop is over. */
  #open(stream: StreamId, carrier: Carrier): void {
    const open = new OpenStream(carrier, {
      onData: (bytes) => this.#onEvent({ type: 'data', stream, bytes }),
      onWritable: () => this.#onEvent({ type: 'writable', stream }),
      onClosed: (why) => this.#onClosed(stream, why),
      onGone: () => this.#alive.delete(open),
    });
    this.#alive.add(open);
    this.#streams.set(stream, { type: 'open', open });
  }

  #onClosed(stream: StreamId, why: string): void {
    this.#streams.delete(stream);
    this.#onEvent({ type: 'closed', stream, why });
  }
}

function refuseLater(onDone: (outcome: Outcome<Carrier>) => void): { abort(): void } {
  const refusal = setImmediate(() => onDone(failed('too many dials at the same time')));
  return { abort: () => clearImmediate(refusal) };
}
