import { parseIpAddress } from '../net/ip-address.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';

/** Where a peer listens. The daemon resolves a host name, and again when the peer does not answer. */
export interface Endpoint {
  /** An IP address in canonical text, or a host name in lower case. */
  readonly host: string;
  /** 1 to 65535. */
  readonly port: number;
}

/** Reads `192.0.2.1:51820`, `[2001:db8::1]:51820` or `gw.example.net:51820`. */
export function parseEndpoint(text: string): Outcome<Endpoint, 'not-an-endpoint'> {
  const match = /^(?:\[([^\]]{2,45})\]|([^:[\]]{1,253})):([1-9]\d{0,4})$/.exec(text);
  const [, bracketed, plain, digits] = match ?? [];
  const port = Number(digits);
  const host = hostOf(bracketed, plain);
  return host !== undefined && port <= 65_535 ? ok({ host, port }) : failed('not-an-endpoint');
}

export function formatEndpoint({ host, port }: Endpoint): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function hostOf(bracketed: string | undefined, plain: string | undefined): string | undefined {
  const ip = parseIpAddress(bracketed ?? plain ?? '');
  if (ip.ok) return ip.value.includes(':') === (bracketed !== undefined) ? ip.value : undefined;
  return plain !== undefined && isHostName(plain) ? plain.toLowerCase() : undefined;
}

/** RFC 1123 §2.1: labels of letters, digits and hyphens; the last one is not a number. */
function isHostName(text: string): boolean {
  const labels = text.replace(/\.$/, '').split('.');
  return labels.every((label) => LABEL.test(label)) && !/^\d+$/.test(labels.at(-1) ?? '');
}

const LABEL = /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/;
