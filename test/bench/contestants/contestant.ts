import type { Lab } from '../../lab/namespaces.ts';

/** A way from namespace `a` to namespace `b`, which a veth pair joins as 10.9.0.1 and 10.9.0.2. */
export interface Contestant {
  readonly name: string;
  /** Starts it anew in the namespaces `a` and `b` of the lab. */
  start(lab: Lab): Promise<Started>;
}

export interface Started {
  /** Of `b`, as `a` reaches it through this contestant. */
  readonly address: string;
  /** Of the daemons in `a` and `b`; none where the kernel does it all. */
  readonly pids: readonly number[];
  /** From the start of the process in `a` to its first handshake, with `b` already there. */
  readonly setUpMs?: number;
}

export const VETH = { a: '10.9.0.1', b: '10.9.0.2' } as const;
export const TUNNEL = { a: '10.77.0.1', b: '10.77.0.2' } as const;

/** Bytes; what Culvert takes by default. */
export const TUNNEL_MTU = 1408;

/** Both sides know each other; `a` begins, as it alone has an endpoint and a keepalive. */
export const KEEPALIVE_SECONDS = 25;

export const bareVeth: Contestant = {
  name: 'bare veth',
  start: () => Promise.resolve({ address: VETH.b, pids: [] }),
};
