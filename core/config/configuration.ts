import * as v from 'valibot';
import type { StreamProtocol } from '../ice/candidate.ts';
import type { IpPrefix } from '../net/ip-prefix.ts';
import type { Severity } from '../sansio/log.ts';
import { DEFAULTS, LIMITS } from './defaults.ts';
import type { Endpoint } from './endpoint.ts';
import { errorsOf, type ConfigurationError, type Parsed } from './error.ts';
import {
  endpoint,
  interfaceAddress,
  interfaceName,
  key,
  label,
  limited,
  name,
  prefix,
  relayUrl,
  wholeNumber,
} from './field.ts';
import type { Name } from './name.ts';
import type { RelayUrl } from './relay-url.ts';
import {
  authorizationSchema,
  resourceSchema,
  type AuthorizationConfiguration,
  type ResourceConfiguration,
} from './resource-configuration.ts';
import { checkSemantics } from './semantics.ts';
import {
  dnsSchema,
  natSchema,
  siteSchema,
  type DnsConfiguration,
  type NatConfiguration,
  type SiteConfiguration,
} from './site-configuration.ts';

/** What one device does, checked: local JSON, UCI and a desired state all parse into it. */
export interface Configuration {
  readonly schema: 1;
  readonly interface: InterfaceConfiguration;
  readonly peers: readonly PeerConfiguration[];
  /** STUN and TURN servers, in no order: the fastest is found by measuring. */
  readonly relays: readonly RelayConfiguration[];
  readonly streams: StreamsConfiguration;
  /** What peers may use here, and what we use of theirs. */
  readonly resources: readonly ResourceConfiguration[];
  /** Who may use which of the resources that this device serves. */
  readonly authorizations: readonly AuthorizationConfiguration[];
  readonly site: SiteConfiguration;
  readonly nat: NatConfiguration;
  readonly dns: DnsConfiguration;
  readonly log: LogConfiguration;
}

export interface InterfaceConfiguration {
  readonly name: string;
  /** Bytes, 1280 to 65440. */
  readonly mtu: number;
  /** UDP port, 1 to 65535. */
  readonly listenPort: number;
  /** Tunnel addresses with their host bits. */
  readonly addresses: readonly IpPrefix[];
}

export interface PeerConfiguration {
  readonly id: Name;
  /** For people; any text of one line. */
  readonly name?: string;
  /** X25519, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 32 bytes. Secret. */
  readonly presharedKey?: Uint8Array;
  /** `culvert` also speaks the peering protocol; `wireguard` is any other implementation. */
  readonly kind: PeerKind;
  readonly endpoint?: Endpoint;
  /** Networks behind the peer; no two peers have the same one. */
  readonly allowedIps: readonly IpPrefix[];
  /** Seconds between persistent keepalives, 0 to 65535; 0 is off. */
  readonly keepalive: number;
}

export type PeerKind = 'culvert' | 'wireguard';

export interface RelayConfiguration {
  /** `stun:host:port`, `turn:host:port?transport=udp|tcp` or `turns:host:port` (RFC 7064, RFC 7065). */
  readonly url: RelayUrl;
  /** Long-term credentials. */
  readonly username?: string;
  /** Secret. */
  readonly credential?: string;
  /** Secret shared with the relay, from which we mint credentials of limited time. */
  readonly secret?: string;
}

/** What carries tunnels where UDP does not pass. */
export interface StreamsConfiguration {
  /** TCP port on which peers may reach us by TCP, TLS or WebSocket; 0 is off. */
  readonly listenPort: number;
  /** The port that peers are told in its place, which a firewall redirects to it. */
  readonly publicPort?: number;
  /** How peers are told to speak with that port; it understands all of them. */
  readonly protocol: StreamProtocol;
  /** `http://[user:password@]host:port`: streams are dialled through it. Secret where it has a password. */
  readonly proxy?: string;
}

export interface LogConfiguration {
  readonly level: Severity;
}

/** Reads a document, or names each wrong value with its path: `peers[2].allowedIps[0]`. */
export function parseConfiguration(json: unknown): Parsed<Configuration> {
  const result = v.safeParse(configurationSchema, json);
  if (!result.success) return { ok: false, errors: errorsOf(result.issues) };
  const errors: readonly ConfigurationError[] = checkSemantics(result.output);
  return errors.length === 0 ? { ok: true, value: result.output } : { ok: false, errors };
}

const interfaceSchema = v.strictObject({
  name: v.pipe(
    v.optional(interfaceName, DEFAULTS.interfaceName),
    v.description('Name of the tunnel interface.'),
  ),
  mtu: v.pipe(
    v.optional(wholeNumber(1280, LIMITS.mtu), DEFAULTS.mtu),
    v.description('Largest packet in the tunnel, in bytes.'),
  ),
  listenPort: v.pipe(
    v.optional(wholeNumber(1, 65_535), DEFAULTS.listenPort),
    v.description('UDP port of the tunnel.'),
  ),
  addresses: v.pipe(
    limited(interfaceAddress, LIMITS.interfaceAddresses),
    v.minLength(1, 'must name at least one address'),
    v.description('Addresses of this device in the tunnel, with prefix length.'),
  ),
});

const peerSchema = v.strictObject({
  id: v.pipe(name, v.description('Name of the peer in topics, commands and logs; unique.')),
  name: v.exactOptional(v.pipe(label, v.description('Name for people.'))),
  publicKey: v.pipe(key, v.description('X25519 public key of the peer in base64.')),
  presharedKey: v.exactOptional(v.pipe(key, v.description('WireGuard preshared key in base64.'))),
  kind: v.pipe(
    v.optional(v.picklist(['culvert', 'wireguard']), DEFAULTS.peerKind),
    v.description('What runs on the other side.'),
  ),
  endpoint: v.exactOptional(
    v.pipe(endpoint, v.description('Where the peer listens: address or host name, and port.')),
  ),
  allowedIps: v.pipe(
    limited(prefix, LIMITS.allowedIps),
    v.description('Networks behind the peer; the longest prefix wins.'),
  ),
  keepalive: v.pipe(
    v.optional(wholeNumber(0, 65_535), DEFAULTS.keepalive),
    v.description('Seconds between persistent keepalives; 0 is off.'),
  ),
});

const secret = v.pipe(
  v.string(),
  v.minLength(1, 'must not be empty'),
  v.maxLength(512, 'must be at most 512 characters'),
);

const relaySchema = v.strictObject({
  url: v.pipe(
    relayUrl,
    v.description('stun:host:port, turn:host:port?transport=udp|tcp or turns:host:port.'),
  ),
  username: v.exactOptional(v.pipe(secret, v.description('User name at the relay.'))),
  credential: v.exactOptional(v.pipe(secret, v.description('Password at the relay.'))),
  secret: v.exactOptional(
    v.pipe(
      secret,
      v.description(
        'Secret shared with the relay (static-auth-secret of coturn) in place of name and password.',
      ),
    ),
  ),
});

const streamsSchema = v.strictObject({
  listenPort: v.pipe(
    v.optional(wholeNumber(0, 65_535), DEFAULTS.streamListenPort),
    v.description(
      'TCP port for peers that UDP does not reach, by TCP, TLS or WebSocket; 0 is off.',
    ),
  ),
  publicPort: v.exactOptional(
    v.pipe(
      wholeNumber(1, 65_535),
      v.description('Port that peers are told, where a firewall redirects it to listenPort.'),
    ),
  ),
  protocol: v.pipe(
    v.optional(v.picklist(['tcp', 'tls', 'ws', 'wss']), DEFAULTS.streamProtocol),
    v.description('How peers speak with that port, which understands all of these.'),
  ),
  proxy: v.exactOptional(
    v.pipe(
      v.string(),
      v.regex(
        /^http:\/\/([^@/\s]{1,256}@)?(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):[1-9]\d{0,4}\/?$/,
        'must be http://host:port or http://user:password@host:port',
      ),
      v.description('HTTP proxy through which streams are dialled with CONNECT.'),
    ),
  ),
});

const logSchema = v.strictObject({
  level: v.pipe(
    v.optional(v.picklist(['trace', 'debug', 'info', 'warn', 'error']), DEFAULTS.logLevel),
    v.description('Lines below this severity are not written.'),
  ),
});

/**
 * `interface` and `peers` have no default: a document that leaves one out is partial, and a partial
 * document must not read as "no peers".
 */
export const configurationSchema: v.GenericSchema<unknown, Configuration> = v.strictObject({
  schema: v.pipe(v.literal(1), v.description('Version of this schema.')),
  interface: interfaceSchema,
  peers: limited(peerSchema, LIMITS.peers),
  relays: v.optional(limited(relaySchema, LIMITS.relays), []),
  streams: v.optional(streamsSchema, {}),
  resources: v.optional(limited(resourceSchema, LIMITS.resources), []),
  authorizations: v.optional(limited(authorizationSchema, LIMITS.authorizations), []),
  site: v.optional(siteSchema, {}),
  nat: v.optional(natSchema, {}),
  dns: v.optional(dnsSchema, {}),
  log: v.optional(logSchema, {}),
});
