import type { PeerConfiguration } from '../config/configuration.ts';

/** A configured peer and its row in the packet arena. */
export interface Peer {
  readonly index: number;
  readonly configuration: PeerConfiguration;
}

/**
 * The configured peers by id and by their dense index. An index is given again only after its peer was
 * removed, the lowest free one first, so that rows in use stay close together.
 */
export class PeerTable {
  readonly #byId = new Map<string, Peer>();
  readonly #byIndex: (Peer | undefined)[] = [];

  /** Adds a peer or replaces its configuration. The schema limits how many there are. */
  set(configuration: PeerConfiguration): Peer {
    const before = this.#byId.get(configuration.id);
    const index = before?.index ?? this.#freeIndex();
    const peer = { index, configuration };
    this.#byId.set(configuration.id, peer);
    this.#byIndex[index] = peer;
    return peer;
  }

  remove(id: string): Peer | undefined {
    const peer = this.#byId.get(id);
    if (peer === undefined) return undefined;
    this.#byId.delete(id);
    this.#byIndex[peer.index] = undefined;
    return peer;
  }

  byId(id: string): Peer | undefined {
    return this.#byId.get(id);
  }

  byIndex(index: number): Peer | undefined {
    return this.#byIndex[index];
  }

  all(): Iterable<Peer> {
    return this.#byId.values();
  }

  #freeIndex(): number {
    const gap = this.#byIndex.indexOf(undefined);
    return gap === -1 ? this.#byIndex.length : gap;
  }
}
