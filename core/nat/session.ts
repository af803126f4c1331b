import type { IpAddress } from '../net/ip-address.ts';
import type { Instant } from '../sansio/instant.ts';

/** Why there is no session for a flow. */
export type NoSession =
  /** Each port is taken by another session to the same address. */
  | 'exhausted'
  /** The owner has as many sessions as one may have. */
  | 'too-many-of-owner'
  /** The table is full of sessions that had replies. */
  | 'too-many';

/** What packets of one direction did since it was last told. */
export interface SessionFacts {
  /** From outside to inside. */
  readonly isReply: boolean;
  readonly packets: number;
  /** Of IP packets, with their headers. */
  readonly bytes: number;
  /** TCP flags seen; FIN and RST only those after the last SYN. */
  readonly syn: boolean;
  readonly fin: boolean;
  readonly rst: boolean;
}

/** A session for people to read. */
export interface Session {
  readonly protocol: number;
  readonly inside: SessionSide;
  readonly outside: SessionSide;
  readonly owner: number;
  readonly state: SessionState;
  readonly openedAt: Instant;
  /** Of the last packet that counts for the lifetime. */
  readonly touchedAt: Instant;
  readonly requests: Traffic;
  readonly replies: Traffic;
}

export interface SessionSide {
  readonly source: IpAddress;
  /** Of the source, or the identifier of an ICMP echo; 0 where there is neither. */
  readonly port: number;
  readonly destination: IpAddress;
}

export interface Traffic {
  readonly packets: number;
  readonly bytes: number;
}

export type SessionState = 'unconfirmed' | 'confirmed' | 'closing' | 'ended';
