import { encodeBase64 } from '../sansio/base64.ts';
import type { PeerConfiguration } from '../config/configuration.ts';

/** A configured peer and its row in the packet arena. */
export interface Peer {
  readonly index: number;
  readonly configuration: PeerConfiguration;
}

/**
 * The configured peers by id, by public key and by their dense index. An index is given again only
 * after its peer was removed, the lowest free one first, so that rows in use stay close together.
 */
export class PeerTable {
  readonly #byId = new Map<string, Peer>();
  readonly #byPublicKey = new Map<string, Peer>();
  readonly #byIndex: (Peer | undefined)[] = [];

  get size(): number {
    return this.#byId.size;
  }

  /** Adds a peer or replaces its configuration. The schema limits how many there are. */
  set(configuration: PeerConfiguration): Peer {
    const before = this.#byId.get(configuration.id);
    const index = before?.index ?? this.#freeIndex();
    if (before !== undefined) this.#byPublicKey.delete(keyOf(before));
    const peer = { index, configuration };
    this.#byId.set(configuration.id, peer);
    this.#byPublicKey.set(keyOf(peer), peer);
    this.#byIndex[index] = peer;
    return peer;
  }

  remove(id: string): Peer | undefined {
    const peer = this.#byId.get(id);
    if (peer === undefined) return undefined;
    this.#byId.delete(id);
    this.#byPublicKey.delete(keyOf(peer));
    this.#byIndex[peer.index] = undefined;
    return peer;
  }

  byId(id: string): Peer | undefined {
    return this.#byId.get(id);
  }

  byIndex(index: number): Peer | undefined {
    return this.#byIndex[index];
  }

  byPublicKey(publicKey: Uint8Array): Peer | undefined {
    return this.#byPublicKey.get(encodeBase64(publicKey));
  }

  all(): Iterable<Peer> {
    return this.#byId.values();
  }

  #freeIndex(): number {
    const gap = this.#byIndex.indexOf(undefined);
    return gap === -1 ? this.#byIndex.length : gap;
  }
}

function keyOf(peer: Peer): string {
  return encodeBase64(peer.configuration.publicKey);
}
