import * as v from 'valibot';
import type { Filter, PortRange } from '../access/filter.ts';
import type { IpStack } from '../dns/stub-resolver.ts';
import { parsePattern, PATTERN_ERRORS, type Pattern } from '../dns/pattern.ts';
import type { IpAddress } from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import { DEFAULTS, LIMITS } from './defaults.ts';
import { address, label, limited, name, prefix, timestamp } from './field.ts';
import type { Name } from './name.ts';

/** Something in a site that is reached through the tunnel by those who are authorized for it. */
export type ResourceConfiguration = ResourceTarget & {
  readonly id: Name;
  /** For people; any text of one line. */
  readonly name?: string;
  /** What of it there is to be had; none means everything. */
  readonly filters: readonly Filter[];
  /** Ids of the peers that serve it, the preferred one first; none: this device serves it. */
  readonly gateways: readonly Name[];
};

export type ResourceTarget =
  | {
      readonly type: 'dns';
      readonly patterns: readonly Pattern[];
      /** Which addresses clients are told. */
      readonly ipStack: IpStack;
    }
  | { readonly type: 'cidr'; readonly prefixes: readonly IpPrefix[] }
  | { readonly type: 'ip'; readonly address: IpAddress }
  /** Everything with a global address. */
  | { readonly type: 'internet' };

/** That a peer may use a resource which this device serves. */
export interface AuthorizationConfiguration {
  readonly peer: Name;
  readonly resource: Name;
  /** From where; any address of the peer if absent. */
  readonly sources?: readonly IpPrefix[];
  /** What of that which the resource offers; none means all of it. */
  readonly filters: readonly Filter[];
  /** Milliseconds since 1970; never if absent. */
  readonly expiresAt?: number;
}

const pattern: v.GenericSchema<string, Pattern> = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const parsed = parsePattern(dataset.value);
    if (parsed.ok) return parsed.value;
    addIssue({ message: PATTERN_ERRORS[parsed.why] });
    return NEVER;
  }),
  v.description('Name such as crm.corp.example, *.corp.example or **.corp.example.'),
);

const ports: v.GenericSchema<string, PortRange> = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const match = /^([1-9]\d{0,4})(?:-([1-9]\d{0,4}))?$/.exec(dataset.value);
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? match?.[1]);
    if (first <= last && last <= 65_535) return { first, last };
    addIssue({ message: 'must be a port or a range of ports, such as "443" or "8000-8100"' });
    return NEVER;
  }),
  v.description('Port or range of ports, such as 443 or 8000-8100.'),
);

const filter: v.GenericSchema<unknown, Filter> = v.variant('protocol', [
  v.strictObject({ protocol: v.literal('icmp') }),
  v.strictObject({
    protocol: v.picklist(['tcp', 'udp']),
    ports: v.pipe(
      v.optional(limited(ports, LIMITS.portRanges), []),
      v.description('Ports of the resource, such as "443" or "8000-8100"; none means all.'),
    ),
  }),
]);

const filters = v.optional(limited(filter, LIMITS.filters), []);

const common = {
  id: v.pipe(name, v.description('Name of the resource in commands and logs; unique.')),
  name: v.exactOptional(v.pipe(label, v.description('Name for people.'))),
  filters: v.pipe(filters, v.description('What may be used of it; none means everything.')),
  gateways: v.pipe(
    v.optional(limited(name, LIMITS.gateways), []),
    v.description(
      'Ids of the peers that serve it, the preferred first; none: this device serves it.',
    ),
  ),
};

export const resourceSchema: v.GenericSchema<unknown, ResourceConfiguration> = v.variant('type', [
  v.strictObject({
    ...common,
    type: v.literal('dns'),
    patterns: v.pipe(
      limited(pattern, LIMITS.targets),
      v.minLength(1, 'must name at least one name'),
      v.description('Names: "?" is one character, "*" one label, "**" any number of labels.'),
    ),
    ipStack: v.pipe(
      v.optional(v.picklist(['dual', 'ipv4-only', 'ipv6-only']), DEFAULTS.ipStack),
      v.description('Which kinds of addresses clients are told.'),
    ),
  }),
  v.strictObject({
    ...common,
    type: v.literal('cidr'),
    prefixes: v.pipe(
      limited(prefix, LIMITS.targets),
      v.minLength(1, 'must name at least one prefix'),
      v.description('Networks in the site.'),
    ),
  }),
  v.strictObject({
    ...common,
    type: v.literal('ip'),
    address: v.pipe(address, v.description('Address of a host in the site.')),
  }),
  v.strictObject({ ...common, type: v.literal('internet') }),
]);

export const authorizationSchema: v.GenericSchema<unknown, AuthorizationConfiguration> =
  v.strictObject({
    peer: v.pipe(name, v.description('Id of the peer that may use the resource.')),
    resource: v.pipe(name, v.description('Id of a resource that this device serves.')),
    sources: v.exactOptional(
      v.pipe(
        limited(prefix, LIMITS.targets),
        v.minLength(1, 'must name at least one prefix'),
        v.description('Addresses from which the peer may use it.'),
      ),
    ),
    filters: v.pipe(filters, v.description('What of it the peer may use; none means all of it.')),
    expiresAt: v.exactOptional(
      v.pipe(
        timestamp,
        v.description('When it ends: a time such as 2027-01-31T18:00:00Z (RFC 3339).'),
      ),
    ),
  });
