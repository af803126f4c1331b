import { parseEndpoint, formatEndpoint, type Endpoint } from '../config/endpoint.ts';
import { parseIpAddress } from '../net/ip-address.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import type { Upstream } from './upstream.ts';

/** What the id of an upstream says: where it is, and how to speak with it. */
export type UpstreamPlace =
  /** UDP and TCP to an IP address. */
  | { readonly protocol: 'plain'; readonly endpoint: Endpoint }
  /** RFC 7858; the certificate must be for the host. */
  | { readonly protocol: 'tls'; readonly endpoint: Endpoint }
  /** RFC 8484. `path` begins with a slash. */
  | { readonly protocol: 'https'; readonly endpoint: Endpoint; readonly path: string };

/**
 * Reads `192.0.2.1`, `192.0.2.1:5353`, `[2001:db8::1]:53`, `tls://dns.example`, `tls://192.0.2.1:853` or
 * `https://dns.example/dns-query`. The id is the same for each way to write one server.
 */
export function parseUpstream(text: string): Outcome<Upstream, 'not-an-upstream'> {
  const place = placeOf(text);
  if (place === undefined) return failed('not-an-upstream');
  const where = formatEndpoint(place.endpoint);
  switch (place.protocol) {
    case 'plain':
      return ok({ id: where, protocol: 'plain' });
    case 'tls':
      return ok({ id: `tls://${where}`, protocol: 'tls' });
    case 'https':
      return ok({ id: `https://${where}${place.path}`, protocol: 'https' });
  }
}

/** Returns where the upstream is; `undefined` for an id that `parseUpstream` did not make. */
export function placeOf(id: string): UpstreamPlace | undefined {
  const [, scheme = '', authority = '', path = ''] =
    /^(?:(tls|https):\/\/)?([^/]{1,300})(\/[!-~]{0,500})?$/.exec(id) ?? [];
  const endpoint = endpointOf(authority, PORTS[scheme] ?? 53);
  if (endpoint === undefined) return undefined;
  if (scheme === 'https') return { protocol: 'https', endpoint, path: path || '/dns-query' };
  if (path !== '') return undefined;
  if (scheme === 'tls') return { protocol: 'tls', endpoint };
  return parseIpAddress(endpoint.host).ok ? { protocol: 'plain', endpoint } : undefined;
}

const PORTS: Readonly<Record<string, number>> = { tls: 853, https: 443 };

function endpointOf(authority: string, port: number): Endpoint | undefined {
  const isBareIpv6 = parseIpAddress(authority).ok && authority.includes(':');
  const bracketed = isBareIpv6 ? `[${authority}]` : authority;
  const hasPort = /^[^:[\]]+:\d+$|\]:\d+$/.test(bracketed);
  const endpoint = parseEndpoint(hasPort ? bracketed : `${bracketed}:${port}`);
  return endpoint.ok ? endpoint.value : undefined;
}
