import type { Pattern } from '../dns/pattern.ts';
import type { IpAddress } from '../net/ip-address.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import type { Filter } from './filter.ts';

/** Something in the site of a gateway that peers may be authorized for. */
export type Resource = ResourceTarget & {
  readonly id: string;
  /** What of it there is to be had; none means everything. */
  readonly filters: readonly Filter[];
};

export type ResourceTarget =
  | { readonly type: 'cidr'; readonly prefixes: readonly IpPrefix[] }
  | { readonly type: 'ip'; readonly address: IpAddress }
  /** Reached through proxies: which resource one stands for, `ResourceNat` knows. */
  | { readonly type: 'dns'; readonly patterns: readonly Pattern[] }
  /** All that has a global address and is no part of a more specific resource. */
  | { readonly type: 'internet' };
