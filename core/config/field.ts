import * as v from 'valibot';
import {
  parseInterfaceAddress,
  networkOf,
  formatIpPrefix,
  type IpPrefix,
} from '../net/ip-prefix.ts';
import { parseIpAddress, type IpAddress } from '../net/ip-address.ts';
import { parseDomainName, type DomainName } from '../dns/name.ts';
import type { Upstream } from '../dns/upstream.ts';
import { parseUpstream } from '../dns/upstream-url.ts';
import { decodeBase64 } from '../sansio/base64.ts';
import { parseEndpoint, type Endpoint } from './endpoint.ts';
import { parseRelayUrl, type RelayUrl } from './relay-url.ts';
import { NAME_PATTERN, type Name } from './name.ts';
import { parseTimestamp } from './timestamp.ts';

/** The kinds of values that documents are made of. Each parses text into the type of the core. */

export const name: v.GenericSchema<string, Name> = v.pipe(
  v.string(),
  v.regex(
    NAME_PATTERN,
    'must be 1 to 64 letters, digits, ".", "_" or "-", the first a letter or digit',
  ),
  v.transform((text) => text as Name),
);

/** One line of text for people. */
export const label: v.GenericSchema<string, string> = v.pipe(
  v.string(),
  v.minLength(1, 'must not be empty'),
  v.maxLength(64, 'must be at most 64 characters'),
  // A control character could forge a log line or colour a terminal.
  v.regex(/^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$/u, 'must not hold control characters'),
);

/** IFNAMSIZ and dev_valid_name() of Linux: at most 15 characters; `:` would name an alias. */
export const interfaceName: v.GenericSchema<string, string> = v.pipe(
  v.string(),
  v.regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/,
    'must be 1 to 15 letters, digits, ".", "_" or "-", the first a letter or digit',
  ),
);

export function wholeNumber(least: number, most: number): v.GenericSchema<number, number> {
  const message = `must be a whole number from ${least} to ${most}`;
  return v.pipe(
    v.number(),
    v.integer(message),
    v.minValue(least, message),
    v.maxValue(most, message),
  );
}

/** A 32-byte key in base64. The message never holds the value. */
export const key: v.GenericSchema<string, Uint8Array> = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/, 'must be a key: 32 bytes in base64'),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const bytes = decodeBase64(dataset.value);
    if (bytes?.some((byte) => byte !== 0) === true) return bytes;
    addIssue({ message: 'must not be a key of zeros' });
    return NEVER;
  }),
);

export const address: v.GenericSchema<string, IpAddress> = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const parsed = parseIpAddress(dataset.value);
    if (parsed.ok) return parsed.value;
    addIssue({ message: 'must be an address such as 192.0.2.1 or 2001:db8::1' });
    return NEVER;
  }),
);

export const prefix: v.GenericSchema<string, IpPrefix> = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const parsed = parseInterfaceAddress(dataset.value);
    if (!parsed.ok) {
      addIssue({ message: 'must be a prefix such as 192.0.2.0/24 or 2001:db8::/32' });
      return NEVER;
    }
    const network = networkOf(parsed.value);
    if (network.address !== parsed.value.address) {
      addIssue({ message: `has bits behind its length: write ${formatIpPrefix(network)}` });
      return NEVER;
    }
    return network;
  }),
  v.description('Network such as 192.0.2.0/24 or 2001:db8::/32.'),
);

export const interfaceAddress: v.GenericSchema<string, IpPrefix> = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const address = parseInterfaceAddress(dataset.value);
    if (address.ok) return address.value;
    addIssue({ message: 'must be an address with its length, such as 100.64.0.1/32' });
    return NEVER;
  }),
  v.description('Address with its length, such as 100.64.0.1/32.'),
);

export const endpoint: v.GenericSchema<string, Endpoint> = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const parsed = parseEndpoint(dataset.value);
    if (parsed.ok) return parsed.value;
    addIssue({ message: 'must be address:port, [address]:port or name:port' });
    return NEVER;
  }),
);

export const relayUrl: v.GenericSchema<string, RelayUrl> = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const parsed = parseRelayUrl(dataset.value);
    if (parsed.ok) return parsed.value;
    addIssue({
      message: 'must be stun:host:port, turn:host:port?transport=udp or =tcp, or turns:host:port',
    });
    return NEVER;
  }),
);

export const domain: v.GenericSchema<string, DomainName> = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const parsed = parseDomainName(dataset.value);
    if (parsed.ok) return parsed.value;
    addIssue({ message: 'must be a domain such as corp.example' });
    return NEVER;
  }),
  v.description('Domain such as corp.example.'),
);

export const upstream: v.GenericSchema<string, Upstream> = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const parsed = parseUpstream(dataset.value);
    if (parsed.ok) return parsed.value;
    addIssue({
      message: 'must be 192.0.2.1, 192.0.2.1:53, tls://host, tls://host:853 or https://host/path',
    });
    return NEVER;
  }),
  v.description(
    'Such as 192.0.2.1, 192.0.2.1:53, tls://dns.example or https://dns.example/dns-query.',
  ),
);

/** Becomes milliseconds since 1970. */
export const timestamp: v.GenericSchema<string, number> = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const parsed = parseTimestamp(dataset.value);
    if (parsed.ok) return parsed.value;
    addIssue({ message: 'must be a time such as 2027-01-31T18:00:00Z' });
    return NEVER;
  }),
);

/** A list of at most `limit` entries; the size of the document bounds what is looked at before. */
export function limited<Input, Output>(
  item: v.GenericSchema<Input, Output>,
  limit: number,
): v.GenericSchema<Input[], readonly Output[]> {
  return v.pipe(v.array(item), v.maxLength(limit, `must hold at most ${limit} entries`));
}
