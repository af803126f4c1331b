import type { SocketAddress } from '../net/socket-address.ts';
import { BugError } from '../sansio/outcome.ts';

/** RFC 8445 §5.1.1; a stream candidate is one of RFC 6544. */
export type CandidateType = 'host' | 'srflx' | 'prflx' | 'relay';

export type Candidate = UdpCandidate | StreamCandidate;

interface CommonCandidate {
  readonly type: CandidateType;
  readonly foundation: string;
  /** RFC 8445 §5.1.2, 1 to 2^31 - 1. */
  readonly priority: number;
  readonly address: SocketAddress;
}

export interface UdpCandidate extends CommonCandidate {
  readonly transport: 'udp';
  /** The base of a reflexive or relayed candidate, for diagnosis. */
  readonly related?: SocketAddress;
}

export interface StreamCandidate extends CommonCandidate {
  readonly transport: 'tcp';
  /** RFC 6544 §4.5: who dials. An active one has port 9. */
  readonly tcpType: 'active' | 'passive';
  /** What is spoken at a passive one: RFC 4571 frames over this. */
  readonly protocol?: StreamProtocol;
}

export type StreamProtocol = 'tcp' | 'tls' | 'ws' | 'wss';

/** Formats `candidate:…` of RFC 8839 §5.1 (and RFC 6544 §4.5), component 1, without the `a=`. */
export function formatCandidate(_candidate: Candidate): string {
  throw new BugError('not written');
}

/** Reads what `formatCandidate` and other implementations write; `undefined` for anything else. */
export function parseCandidate(_text: string): Candidate | undefined {
  throw new BugError('not written');
}
