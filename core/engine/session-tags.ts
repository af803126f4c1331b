import type { SessionTag } from './sessions.ts';

/** Sessions by the thousand are for few names of few peers: equal tags are one object while any has them. */
export class SessionTags {
  readonly #shared = new Map<string, { readonly tag: SessionTag; sessions: number }>();

  /** Returns the tag that is equal to this one, for one session more. */
  share(tag: SessionTag): SessionTag {
    const key = keyOf(tag);
    const known = this.#shared.get(key);
    if (known === undefined) this.#shared.set(key, { tag, sessions: 1 });
    else known.sessions++;
    return known?.tag ?? tag;
  }

  /** A session with the tag has ended. */
  release(tag: SessionTag): void {
    const key = keyOf(tag);
    const known = this.#shared.get(key);
    if (known !== undefined && --known.sessions === 0) this.#shared.delete(key);
  }
}

/** Names of peers and resources have no blanks, and neither have those of hosts. */
function keyOf({ role, peer, peerId, resource, domain }: SessionTag): string {
  return `${role} ${peer} ${peerId} ${resource ?? ''} ${domain ?? ''}`;
}
