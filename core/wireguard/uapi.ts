import { formatIpPrefix, parseIpPrefix, type IpPrefix } from '../net/ip-prefix.ts';
import { parseSocketAddress, type SocketAddress } from '../net/socket-address.ts';
import { decodeHex, encodeHex } from '../sansio/hex.ts';
import { failed, ok, type Outcome } from '../sansio/outcome.ts';
import { TextSplitter } from '../sansio/text-splitter.ts';

/*
 * The configuration protocol of userspace WireGuard (https://www.wireguard.com/xplatform/), which `wg`
 * speaks: lines of key=value, a blank line ends a request or an answer. All of it is ASCII.
 */

export type UapiRequest = { readonly type: 'get' } | UapiSet;

/** What is `undefined` stays as it is. The peers are to be applied in this order. */
export interface UapiSet {
  readonly type: 'set';
  readonly privateKey: Uint8Array | 'none' | undefined;
  /** 0 asks for a random one. */
  readonly listenPort: number | undefined;
  /** 0 asks for none. */
  readonly fwmark: number | undefined;
  /** Whether peers that the request does not name go away. */
  readonly replacePeers: boolean;
  readonly peers: readonly UapiPeerSet[];
}

export interface UapiPeerSet {
  readonly publicKey: Uint8Array;
  readonly remove: boolean;
  /** Whether the peer is left out when it does not exist yet. */
  readonly updateOnly: boolean;
  readonly presharedKey: Uint8Array | 'none' | undefined;
  readonly endpoint: SocketAddress | undefined;
  /** Seconds; 0 switches it off. */
  readonly persistentKeepalive: number | undefined;
  /** Whether the peer's prefixes go away before `allowedIps` are applied. */
  readonly replaceAllowedIps: boolean;
  readonly allowedIps: readonly UapiAllowedIp[];
}

/** A prefix that the peer gets, from another peer if one has it, or loses. */
export interface UapiAllowedIp {
  readonly action: 'add' | 'remove';
  readonly prefix: IpPrefix;
}

export interface UapiState {
  readonly privateKey: Uint8Array | undefined;
  readonly listenPort: number;
  readonly fwmark: number;
  readonly peers: readonly UapiPeerState[];
}

export interface UapiPeerState {
  readonly publicKey: Uint8Array;
  readonly presharedKey: Uint8Array | undefined;
  readonly endpoint: SocketAddress | undefined;
  /** Seconds; 0 where it is off. */
  readonly persistentKeepalive: number;
  readonly allowedIps: readonly IpPrefix[];
  /** Milliseconds since 1970-01-01 UTC. */
  readonly lastHandshakeUnixMs: number | undefined;
  readonly rxBytes: number;
  readonly txBytes: number;
}

/** `protocol`: not of the form of a request; `invalid`: an unknown key or a bad value. */
export type UapiFailure = 'protocol' | 'invalid';

/** EPROTO and EINVAL, which have the same numbers on all supported machines. */
export const UAPI_ERRNO: Readonly<Record<UapiFailure, number>> = { protocol: 71, invalid: 22 };

/** Larger requests are refused, in characters: room for some 10,000 peers. */
const UAPI_REQUEST_LIMIT: number = 4 * 2 ** 20;

/** Parses a request without the blank line that ended it. All of it is valid or nothing is. */
export function parseUapiRequest(text: string): Outcome<UapiRequest, UapiFailure> {
  const [operation, ...lines] = text.split('\n');
  if (operation === 'get=1') return lines.length === 0 ? ok({ type: 'get' }) : failed('invalid');
  if (operation !== 'set=1') return failed('protocol');

  const request: Draft<UapiSet> = {
    type: 'set',
    privateKey: undefined,
    listenPort: undefined,
    fwmark: undefined,
    replacePeers: false,
    peers: [],
  };
  const peers: UapiPeerSet[] = [];
  let peer: DraftPeer | undefined;
  for (const line of lines) {
    const equals = line.indexOf('=');
    if (equals < 0) return failed('protocol');
    const key = line.slice(0, equals);
    const value = line.slice(equals + 1);
    if (key === 'public_key') {
      peer = newPeer(value);
      if (peer === undefined) return failed('invalid');
      peers.push(peer);
    } else {
      const isValid =
        peer === undefined ? setInterface(request, key, value) : setPeer(peer, key, value);
      if (!isValid) return failed('invalid');
    }
  }
  return ok({ ...request, peers });
}

/** Returns the answer to a get. */
export function formatUapiState(state: UapiState): string {
  const lines: string[] = [];
  if (state.privateKey !== undefined) lines.push(`private_key=${encodeHex(state.privateKey)}`);
  if (state.listenPort !== 0) lines.push(`listen_port=${state.listenPort}`);
  if (state.fwmark !== 0) lines.push(`fwmark=${state.fwmark}`);
  for (const peer of state.peers) {
    const handshakeMs = peer.lastHandshakeUnixMs ?? 0;
    lines.push(
      `public_key=${encodeHex(peer.publicKey)}`,
      `preshared_key=${encodeHex(peer.presharedKey ?? NO_KEY)}`,
      'protocol_version=1',
    );
    if (peer.endpoint !== undefined) lines.push(`endpoint=${peer.endpoint}`);
    lines.push(
      `last_handshake_time_sec=${Math.floor(handshakeMs / 1000)}`,
      `last_handshake_time_nsec=${Math.floor(handshakeMs % 1000) * 1_000_000}`,
      `tx_bytes=${peer.txBytes}`,
      `rx_bytes=${peer.rxBytes}`,
      `persistent_keepalive_interval=${peer.persistentKeepalive}`,
      ...peer.allowedIps.map((prefix) => `allowed_ip=${formatIpPrefix(prefix)}`),
    );
  }
  return lines.map((line) => `${line}\n`).join('') + formatUapiErrno(0);
}

/** Returns the answer to a set, or to any request that failed. `errno` is 0 or the positive number. */
export function formatUapiErrno(errno: number): string {
  // wg negates what it reads.
  return `errno=${errno === 0 ? 0 : -errno}\n\n`;
}

/** Returns what cuts a stream into requests for `parseUapiRequest`. */
export function createUapiSplitter(limit: number = UAPI_REQUEST_LIMIT): TextSplitter {
  return new TextSplitter('\n\n', limit);
}

type Draft<T> = { -readonly [Key in keyof T]: T[Key] };
type DraftPeer = Draft<UapiPeerSet> & { allowedIps: UapiAllowedIp[] };

const KEY_SIZE = 32;
const NO_KEY: Uint8Array = new Uint8Array(KEY_SIZE);

function newPeer(value: string): DraftPeer | undefined {
  const publicKey = parseKey(value);
  if (publicKey === undefined) return undefined;
  return {
    publicKey,
    remove: false,
    updateOnly: false,
    presharedKey: undefined,
    endpoint: undefined,
    persistentKeepalive: undefined,
    replaceAllowedIps: false,
    allowedIps: [],
  };
}

/** Sets a value before the first peer; returns whether key and value are valid. */
function setInterface(request: Draft<UapiSet>, key: string, value: string): boolean {
  switch (key) {
    case 'private_key':
      return (request.privateKey = parseKeyOrNone(value)) !== undefined;
    case 'listen_port':
      return (request.listenPort = parseNumber(value, 0xffff)) !== undefined;
    case 'fwmark':
      return (request.fwmark = parseNumber(value, 0xffff_ffff)) !== undefined;
    case 'replace_peers':
      return (request.replacePeers = value === 'true');
    default:
      return false;
  }
}

function setPeer(peer: DraftPeer, key: string, value: string): boolean {
  switch (key) {
    case 'remove':
      return (peer.remove = value === 'true');
    case 'update_only':
      return (peer.updateOnly = value === 'true');
    case 'preshared_key':
      return (peer.presharedKey = parseKeyOrNone(value)) !== undefined;
    case 'endpoint': {
      const endpoint = parseSocketAddress(value);
      if (endpoint.ok) peer.endpoint = endpoint.value;
      return endpoint.ok;
    }
    case 'persistent_keepalive_interval':
      return (peer.persistentKeepalive = parseNumber(value, 0xffff)) !== undefined;
    case 'replace_allowed_ips':
      return (peer.replaceAllowedIps = value === 'true');
    case 'allowed_ip': {
      const allowedIp = parseAllowedIp(value);
      if (allowedIp !== undefined) peer.allowedIps.push(allowedIp);
      return allowedIp !== undefined;
    }
    case 'protocol_version':
      return value === '1';
    default:
      return false;
  }
}

/** `192.0.2.0/24` or `+192.0.2.0/24` gives the prefix to the peer, `-192.0.2.0/24` takes it. */
function parseAllowedIp(value: string): UapiAllowedIp | undefined {
  const hasSign = value.startsWith('+') || value.startsWith('-');
  const prefix = parseIpPrefix(hasSign ? value.slice(1) : value);
  if (!prefix.ok || !value.includes('/')) return undefined;
  return { action: value.startsWith('-') ? 'remove' : 'add', prefix: prefix.value };
}

function parseKeyOrNone(value: string): Uint8Array | 'none' | undefined {
  const key = parseKey(value);
  return key?.every((byte) => byte === 0) ? 'none' : key;
}

function parseKey(value: string): Uint8Array | undefined {
  return value.length === KEY_SIZE * 2 ? decodeHex(value) : undefined;
}

function parseNumber(value: string, most: number): number | undefined {
  const number = /^\d{1,10}$/.test(value) ? Number(value) : Infinity;
  return number <= most ? number : undefined;
}
