import type { SocketAddress } from '../../core/net/socket-address.ts';
import { socketAddress } from '../../core/net/socket-address.ts';
import type { Millis } from '../../core/sansio/instant.ts';
import type { Host, UdpSocket } from './host.ts';
import type { World } from './world.ts';

const PORT = 4_000;
const MIRROR_PORT = 4_001;
const INTERVAL: Millis = 50;

/** Adds a host to the Internet that tells those who ask under which address it sees them. */
export function addMirror(world: World): SocketAddress {
  const host = world.host('mirror');
  const socket = host.listen(MIRROR_PORT, (from) => socket.send(from, encode('mapped', from)));
  return endpointOf(host, 4, MIRROR_PORT)!;
}

/**
 * Punches as simply as can be, to see whether a path exists: both sides learn their mapped address, tell
 * each other all addresses, and send checks from one socket to every address that they know or hear
 * from. As in RFC 8445 §7.2.5.2.1 an answer counts only from where the check went to.
 */
export class Prober {
  readonly #host: Host;
  readonly #world: World;
  readonly #socket: UdpSocket;
  readonly #remotes = new Set<SocketAddress>();
  readonly #valid = new Set<SocketAddress>();
  #mapped: SocketAddress | undefined;

  constructor(world: World, host: Host, mirror: SocketAddress) {
    this.#world = world;
    this.#host = host;
    this.#socket = host.listen(PORT, (from, _to, payload) => this.#receive(from, payload));
    this.#socket.send(mirror, encode('who'));
  }

  get candidates(): readonly SocketAddress[] {
    const own = [endpointOf(this.#host, 4, PORT), endpointOf(this.#host, 6, PORT), this.#mapped];
    return own.filter((candidate) => candidate !== undefined);
  }

  /** Remote addresses that answered. */
  get valid(): readonly SocketAddress[] {
    return [...this.#valid];
  }

  probe(candidates: readonly SocketAddress[], forMs: Millis): void {
    for (const candidate of candidates) this.#remotes.add(candidate);
    for (let wait = 0; wait < forMs; wait += INTERVAL) {
      this.#world.timeline.in(wait, () => this.#check());
    }
  }

  close(): void {
    this.#socket.close();
  }

  #check(): void {
    // A check to ourselves would be answered too: in another LAN the address is someone else's.
    for (const remote of this.#remotes) {
      this.#socket.send(remote, encode('check', this.#host.name, remote));
    }
  }

  #receive(from: SocketAddress, payload: Uint8Array): void {
    const [type, first, second] = Buffer.from(payload).toString().split(' ');
    if (type === 'mapped') this.#mapped = first as SocketAddress;
    if (type === 'check' && first !== this.#host.name) {
      this.#remotes.add(from);
      this.#socket.send(from, encode('answer', second ?? ''));
    }
    if (type === 'answer' && second === undefined && first === from) this.#valid.add(from);
  }
}

/** Whether two hosts get a path in both directions, as a simulation shows. */
export function probe(world: World, a: Host, b: Host, mirror: SocketAddress): boolean {
  const probers = [a, b].map((host) => new Prober(world, host, mirror)) as [Prober, Prober];
  world.run(500);
  const [ofA, ofB] = probers.map(({ candidates }) => candidates);
  probers[0].probe(ofB ?? [], 2_000);
  probers[1].probe(ofA ?? [], 2_000);
  world.run(2_500);
  for (const prober of probers) prober.close();
  return probers.every(({ valid }) => valid.length > 0);
}

function encode(...words: readonly string[]): Uint8Array {
  return Buffer.from(words.join(' '));
}

function endpointOf(host: Host, family: 4 | 6, port: number): SocketAddress | undefined {
  const address = host.address(family);
  return address === undefined ? undefined : socketAddress(address, port);
}
