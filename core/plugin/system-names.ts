import type { Hosts } from '../dns/hosts.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import { capability, type Capability } from './capability.ts';

/** What the system knows of names: its resolvers and its hosts files. */
export interface SystemNameConfiguration {
  /** In the order of the files, without duplicates; the system's own resolver may be among them. */
  readonly nameservers: readonly SocketAddress[];
  /** Those of the provider, which a resolver of the system asks; empty where they are not known. */
  readonly providerNameservers: readonly SocketAddress[];
  readonly hosts: Hosts;
}

export interface SystemNames {
  read(): SystemNameConfiguration;
  /** Calls `onChange` after a file changed. Returns the function that ends it. */
  monitor(onChange: () => void): () => void;
}

export const systemNames: Capability<SystemNames> = capability('system-names');
