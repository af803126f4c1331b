import type { Millis } from '../../core/sansio/instant.ts';
import { MemoryNetwork, type MemoryDatagram } from '../memory/datagrams.ts';
import type { Call } from './recording.ts';
import { receivedNumbers, sendNumber } from './numbered-packets.ts';
import { SeededRandom } from './seeded-random.ts';
import { Site } from './site.ts';
import { VirtualTime } from './virtual-time.ts';

export const START_UNIX_MS = Date.UTC(2026, 0, 1);

/** Two sites that know each other, and a network between them that loses and repeats by a seed. */
export class TwoSites {
  readonly time = new VirtualTime(START_UNIX_MS);
  readonly network = new MemoryNetwork();
  readonly a: Site;
  readonly b: Site;
  /** Share of datagrams that are lost, and that come twice. */
  loss = 0;
  duplication = 0;
  /** Everything that was sent on the wire, before any was lost. */
  sent = 0;
  /** Addresses by host name, and the names that were asked for. */
  readonly names = new Map<string, readonly string[]>();
  readonly lookUps: string[] = [];
  /** Every call of the engine at site a. */
  readonly calls: Call[] = [];
  readonly #random: SeededRandom;

  constructor(seed: number) {
    this.#random = new SeededRandom(seed);
    this.network.fate = (datagram) => this.#fate(datagram);
    this.a = new Site({ ...this.#common(seed + 1), address: '192.0.2.1', calls: this.calls });
    this.b = new Site({ ...this.#common(seed + 2), address: '192.0.2.2' });
    this.a.configure(documentFor('10.0.0.1', 'b', this.b.publicKey, '192.0.2.2:51820', '10.0.0.2'));
    this.b.configure(documentFor('10.0.0.2', 'a', this.a.publicKey, '192.0.2.1:51820', '10.0.0.1'));
  }

  /** Has the host at one site send a packet with this number to the host at the other. */
  send(from: 'a' | 'b', number: number): void {
    const source = from === 'a' ? '10.0.0.1' : '10.0.0.2';
    const destination = from === 'a' ? '10.0.0.2' : '10.0.0.1';
    sendNumber(this[from].tun, source, destination, number);
    this.network.deliver();
  }

  /** The numbers of the packets that arrived at a site, in order. */
  received(at: 'a' | 'b'): readonly number[] {
    return receivedNumbers(this[at].tun);
  }

  advance(ms: Millis): void {
    this.time.advance(ms, () => this.network.deliver());
  }

  #fate(datagram: MemoryDatagram): readonly MemoryDatagram[] {
    this.sent++;
    if (this.#random.fraction() < this.loss) return [];
    return this.#random.fraction() < this.duplication ? [datagram, datagram] : [datagram];
  }

  #lookUp(host: string): readonly string[] {
    this.lookUps.push(host);
    return this.names.get(host) ?? [];
  }

  #common(seed: number) {
    return {
      time: this.time,
      network: this.network,
      seed,
      lookUp: (host: string) => this.#lookUp(host),
    };
  }
}

function documentFor(own: string, id: string, publicKey: string, endpoint: string, peer: string) {
  return {
    interface: { addresses: [`${own}/24`] },
    peers: [{ id, publicKey, endpoint, allowedIps: [`${peer}/32`] }],
  };
}
