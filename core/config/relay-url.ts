import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import { parseEndpoint, formatEndpoint, type Endpoint } from './endpoint.ts';

/** A STUN or TURN server and how to speak with it. */
export interface RelayUrl {
  /** `stun` only tells us our address; `turn` also relays. */
  readonly service: 'stun' | 'turn';
  readonly transport: 'udp' | 'tcp' | 'tls';
  readonly endpoint: Endpoint;
}

/** Reads a URI of RFC 7064 or RFC 7065; the scheme may be followed by `//`, as people write it. */
export function parseRelayUrl(text: string): Outcome<RelayUrl, 'not-a-relay'> {
  const match = /^(stun|turns?):(?:\/\/)?([^?/]{1,300})(?:\?transport=(udp|tcp))?$/.exec(text);
  const [, scheme = '', authority = '', parameter] = match ?? [];
  const port = scheme === 'turns' ? TURNS_PORT : STUN_PORT;
  const hasPort = /^[^:[\]]+:\d+$|\]:\d+$/.test(authority);
  const endpoint = parseEndpoint(hasPort ? authority : `${authority}:${port}`);
  if (!endpoint.ok) return failed('not-a-relay');
  const service = scheme === 'stun' ? 'stun' : 'turn';
  // A STUN server over a stream would tell the address of the stream; TURN over DTLS is nobody's.
  const isOdd =
    (scheme === 'stun' && parameter === 'tcp') || (scheme === 'turns' && parameter === 'udp');
  if (isOdd) return failed('not-a-relay');
  const transport = scheme === 'turns' ? 'tls' : (parameter ?? 'udp');
  return ok({ service, transport: transport as RelayUrl['transport'], endpoint: endpoint.value });
}

export function formatRelayUrl({ service, transport, endpoint }: RelayUrl): string {
  const where = formatEndpoint(endpoint);
  if (service === 'stun') return `stun:${where}`;
  return transport === 'tls' ? `turns:${where}` : `turn:${where}?transport=${transport}`;
}

/** RFC 8489 §18.6, RFC 8656 §18.8. */
const STUN_PORT = 3478;
const TURNS_PORT = 5349;
