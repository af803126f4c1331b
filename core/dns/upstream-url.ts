import { formatEndpoint, parseEndpoint, type Endpoint } from '../config/endpoint.ts';
import { isLinkLocal, parseIpAddress, type IpAddress } from '../net/ip-address.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import type { Upstream } from './upstream.ts';

/** What the id of an upstream says: where it is, and how to speak with it. */
export type UpstreamPlace =
  /** UDP and TCP to an IP address. */
  | { readonly protocol: 'plain'; readonly endpoint: Endpoint }
  /** RFC 7858; the certificate must be for the host. */
  | { readonly protocol: 'tls'; readonly endpoint: Endpoint }
  /** RFC 8484. `path` begins with a slash and may have a query (RFC 3986 §3.4). */
  | { readonly protocol: 'https'; readonly endpoint: Endpoint; readonly path: string };

/**
 * Reads `192.0.2.1`, `192.0.2.1:5353`, `[2001:db8::1]:53`, `tls://dns.example`, `tls://192.0.2.1:853`,
 * `https://dns.example/dns-query` or the template `https://dns.example/dns-query{?dns}` of RFC 8484 §4.1.
 * The id is the same for each way to write one server.
 */
export function parseUpstream(text: string): Outcome<Upstream, 'not-an-upstream'> {
  const place = read(text);
  return place === undefined
    ? failed('not-an-upstream')
    : ok({ id: idOf(place), protocol: place.protocol });
}

/** Returns where the upstream is; `undefined` for an id that `parseUpstream` did not make. */
export function placeOf(id: string): UpstreamPlace | undefined {
  const place = read(id);
  return place !== undefined && idOf(place) === id ? place : undefined;
}

function idOf(place: UpstreamPlace): string {
  const where = formatEndpoint(place.endpoint);
  if (place.protocol === 'plain') return where;
  return `${place.protocol}://${where}${place.protocol === 'https' ? place.path : ''}`;
}

function read(text: string): UpstreamPlace | undefined {
  const [, scheme = '', authority = '', path = ''] = URL.exec(text) ?? [];
  switch (scheme.toLowerCase()) {
    case '': {
      const endpoint = path === '' ? endpointOf(authority, 53) : undefined;
      if (endpoint === undefined || !parseIpAddress(endpoint.host).ok) return undefined;
      return { protocol: 'plain', endpoint };
    }
    case 'tls': {
      const endpoint = path === '' ? endpointOf(authority, 853) : undefined;
      return endpoint && { protocol: 'tls', endpoint };
    }
    default: {
      const endpoint = endpointOf(authority, 443);
      return endpoint && { protocol: 'https', endpoint, path: path || '/dns-query' };
    }
  }
}

/**
 * Scheme, authority, and the path with its query in the characters of RFC 3986 §3.3 and §3.4. A fragment
 * names nothing of a server; the expression at the end is for GET, and we ask by POST.
 */
const URL =
  /^(?:(tls|https):\/\/)?([^/]{1,300})(?:(\/[\w.~!$&'()*+,;=:@%/?-]{0,500})(?:\{\?dns\})?)?$/i;

function endpointOf(authority: string, port: number): Endpoint | undefined {
  const isBareIpv6 = parseIpAddress(authority).ok && authority.includes(':');
  const bracketed = isBareIpv6 ? `[${authority}]` : authority;
  const hasPort = /^[^:[\]]+:\d+$|\]:\d+$/.test(bracketed);
  const endpoint = parseEndpoint(hasPort ? bracketed : `${bracketed}:${port}`);
  if (!endpoint.ok) return undefined;
  const ip = parseIpAddress(endpoint.value.host);
  if (ip.ok) return isOfOneServer(ip.value) ? endpoint.value : undefined;
  // RFC 6066 §3: what TLS calls the server by has no dot at the end.
  return { ...endpoint.value, host: endpoint.value.host.replace(/\.$/, '') };
}

/**
 * Whether answers can come from the address that was asked. Not from none, all or many; a link-local one
 * wants a zone, which our addresses lack; a mapped one is an IPv4 address, to be written as such.
 */
function isOfOneServer(ip: IpAddress): boolean {
  if (!ip.includes(':')) return !/^(0|22[4-9]|23\d|24\d|25\d)\./.test(ip);
  return ip !== '::' && !ip.startsWith('ff') && !ip.startsWith('::ffff:') && !isLinkLocal(ip);
}
