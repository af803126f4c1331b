import type { DnsClient } from '../../core/dns/forwarder.ts';
import type {
  DnsListener,
  DnsListenFailure,
  DnsQuery,
  WantedDnsListener,
} from '../../core/plugin/dns-listener.ts';
import type { Log } from '../../core/sansio/log.ts';
import { placesOf } from './places.ts';
import { TcpPlace, TcpStreams } from './tcp.ts';
import { UdpPlace } from './udp.ts';

/**
 * Listens at each address with sockets of its own: one for all addresses would answer from the address
 * that the routes prefer, which need not be the one that was asked.
 *
 * A client's `source` begins with the number of its UDP socket, or is the number of its stream. Numbers
 * are not used twice, so an answer that comes too late finds nobody.
 */
export class Listener implements DnsListener {
  readonly #log: Log;
  readonly #places = new Map<string, OpenPlace>();
  readonly #udp = new Map<number, UdpPlace>();
  readonly #streams: TcpStreams;
  #lastNumber = 0;
  #onQuery: (query: DnsQuery) => void = () => undefined;
  #wanted: WantedDnsListener = NOWHERE;
  #work: Promise<readonly DnsListenFailure[]> = Promise.resolve([]);

  constructor(log: Log) {
    this.#log = log;
    this.#streams = new TcpStreams((query) => this.#onQuery(query));
  }

  listenTo(onQuery: (query: DnsQuery) => void): void {
    this.#onQuery = onQuery;
  }

  listen(wanted: WantedDnsListener): Promise<readonly DnsListenFailure[]> {
    this.#wanted = wanted;
    // One call after the other, each for what is wanted by then.
    this.#work = this.#work.then(() => this.#listen(this.#wanted));
    return this.#work;
  }

  respond({ source, transport }: DnsClient, bytes: Uint8Array): void {
    if (transport === 'tcp') this.#streams.respond(Number(source), bytes);
    else this.#udp.get(Number.parseInt(source, 10))?.respond(source, bytes);
  }

  async stop(): Promise<void> {
    await this.listen(NOWHERE);
  }

  async #listen(wanted: WantedDnsListener): Promise<readonly DnsListenFailure[]> {
    const places = placesOf(wanted);
    for (const key of this.#places.keys()) if (!places.has(key)) this.#close(key);
    const failures: DnsListenFailure[] = [];
    for (const [key, place] of places) {
      if (this.#places.has(key)) continue;
      const udp = new UdpPlace(++this.#lastNumber, place, this.#log, (query) =>
        this.#onQuery(query),
      );
      const tcp = new TcpPlace(place, this.#log, this.#streams);
      const why = (await udp.open()) ?? (await tcp.open());
      // Who gets a truncated answer over UDP must find us over TCP, so it is both or none.
      if (why === undefined) {
        this.#places.set(key, { udp, tcp });
        this.#udp.set(udp.number, udp);
      } else {
        udp.close();
        tcp.close();
        failures.push({ address: place.address, why });
      }
    }
    return failures;
  }

  #close(key: string): void {
    const open = this.#places.get(key);
    if (open === undefined) return;
    this.#places.delete(key);
    this.#udp.delete(open.udp.number);
    open.udp.close();
    open.tcp.close();
  }
}

interface OpenPlace {
  readonly udp: UdpPlace;
  readonly tcp: TcpPlace;
}

const NOWHERE: WantedDnsListener = { port: 0, interfaces: [], addresses: [] };
