import type { StreamsConfiguration } from '../config/configuration.ts';
import type { StreamProtocol } from '../ice/candidate.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import type { ListenFailure } from '../plugin/datagrams.ts';
import type { DialTarget, StreamEvent, StreamId } from '../plugin/streams.ts';
import type { Outcome } from '../sansio/outcome.ts';

/** The port at which streams are accepted. */
export interface StreamsStatus {
  readonly listening: boolean;
  readonly port: number;
  /** The port that peers are told, where it is another one. */
  readonly publicPort?: number;
  readonly why?: ListenFailure;
}

/** What people want to know of streams: whether ours are accepted, and what those there are speak. */
export class StreamFacts {
  #configured: StreamsConfiguration | undefined;
  #listening: Outcome<void, ListenFailure> | undefined;
  /** The transport limits how many there are. */
  readonly #open = new Map<StreamId, Pick<DialTarget, 'address' | 'protocol'>>();

  configure(streams: StreamsConfiguration): void {
    if (streams.listenPort !== this.#configured?.listenPort) this.#listening = undefined;
    this.#configured = streams;
  }

  handleListening(outcome: Outcome<void, ListenFailure>): void {
    this.#listening = outcome;
  }

  handleDial(stream: StreamId, { address, protocol }: DialTarget): void {
    this.#open.set(stream, { address, protocol });
  }

  handleEvent(event: StreamEvent): void {
    if (event.type === 'accepted') {
      this.#open.set(event.stream, { address: event.remote, protocol: event.protocol });
    } else if (event.type === 'closed') this.handleHangUp(event.stream);
  }

  handleHangUp(stream: StreamId): void {
    this.#open.delete(stream);
  }

  /** What is spoken with this address. */
  protocolWith(remote: SocketAddress): StreamProtocol | undefined {
    for (const { address, protocol } of this.#open.values()) {
      if (address === remote) return protocol;
    }
    return undefined;
  }

  /** `undefined` where none are to be accepted. */
  status(): StreamsStatus | undefined {
    const { listenPort: port = 0, publicPort } = this.#configured ?? {};
    if (port === 0) return undefined;
    const listening = this.#listening;
    return {
      listening: listening?.ok === true,
      port,
      ...(publicPort === undefined || publicPort === port ? {} : { publicPort }),
      ...(listening?.ok === false ? { why: listening.why } : {}),
    };
  }
}
