import type { DeviceState, ResourcesState } from '../fleet/report.ts';
import { formatIpPrefix } from '../net/ip-prefix.ts';
import type { SocketAddress } from '../net/socket-address.ts';
import { encodeBase64 } from '../sansio/base64.ts';
import type { DrainStatus } from './drain.ts';
import { tenthsOf, type PathsStatus, type RelayStatus } from './path-status.ts';
import type { Paths } from './paths.ts';
import type { Peer } from './peer-table.ts';
import type { ResourcesSummary } from './resource-status.ts';
import type { StreamsStatus } from './stream-facts.ts';
import type { UserspacePlane } from './userspace-plane.ts';

/** What the daemon knows of itself, as `culvert status --json` prints it. Never holds a secret. */
export interface Status {
  readonly phase: Phase;
  /** base64 */
  readonly publicKey: string;
  readonly interface: InterfaceStatus | undefined;
  readonly fleet: FleetStatus | undefined;
  readonly peers: readonly PeerStatus[];
  /** `undefined` where there are none. */
  readonly resources: ResourcesSummary | undefined;
  readonly relays: readonly RelayStatus[];
  /** Whether streams are accepted; `undefined` where none are to be. */
  readonly streams: StreamsStatus | undefined;
  /** Who is waited for before the daemon goes; while it drains. */
  readonly drain: DrainStatus | undefined;
  /** Packets and datagrams that went nowhere, by reason; reasons never seen are left out. */
  readonly drops: Readonly<Record<string, number>>;
  /** Why the newest configuration is not, or not wholly, the running one. */
  readonly lastError: string | undefined;
}

export type Phase = 'waiting for configuration' | 'running' | 'draining' | 'stopping';

export interface InterfaceStatus {
  readonly name: string;
  readonly listenPort: number;
  /** Bytes. */
  readonly mtu: number;
  readonly addresses: readonly string[];
}

export interface FleetStatus {
  readonly fleet: string;
  readonly device: string;
  /** URL of the broker, while connected. */
  readonly broker: string | undefined;
  /** MQTT version spoken, while connected. */
  readonly protocol: '5' | '3.1.1' | undefined;
  /** Version of the desired state that runs. */
  readonly version: number | undefined;
}

export interface PeerStatus {
  readonly id: string;
  /** base64 */
  readonly publicKey: string;
  /** `no path`: to a peer that runs Culvert, and none is sought at present. */
  readonly state: 'idle' | 'connecting' | 'connected' | 'no path';
  /** What the last attempt met, if it failed; of peers that run Culvert while they are not connected. */
  readonly cause: string | undefined;
  readonly endpoint: SocketAddress | undefined;
  readonly allowedIps: readonly string[];
  /** Milliseconds since 1970-01-01 UTC. */
  readonly lastHandshakeUnixMs: number | undefined;
  /** Milliseconds from the first message of the last handshake to a confirmed session. */
  readonly handshakeMs: number | undefined;
  readonly rxBytes: number;
  readonly txBytes: number;
  /** How the peer is reached; of peers that run Culvert. */
  readonly path?: PathsStatus;
}

/** What the engine keeps of a peer's last attempt. */
export interface PeerHistory {
  readonly cause?: string;
  readonly handshakeMs?: number;
}

/** Returns the rows of the peer table with what the data plane knows of each. */
export function peerStatusesOf(
  peers: Iterable<Peer>,
  plane: UserspacePlane,
  paths: Paths,
  history: ReadonlyMap<string, PeerHistory>,
): readonly PeerStatus[] {
  return [...peers].map(({ index, configuration }) => {
    const { id, publicKey, allowedIps } = configuration;
    const tunnel = plane.peerStatus(index);
    const { rxBytes, txBytes } = plane.counters(index);
    const path = paths.status(index);
    const state = stateOf(tunnel, path);
    const cause = paths.hasKeyMismatch(index) ? 'key-mismatch' : history.get(id)?.cause;
    return {
      id,
      publicKey: encodeBase64(publicKey),
      state,
      cause: path === undefined || state !== 'connected' ? cause : undefined,
      endpoint: tunnel?.endpoint,
      allowedIps: allowedIps.map(formatIpPrefix),
      lastHandshakeUnixMs: wholeMs(tunnel?.lastHandshakeUnixMs),
      handshakeMs: tenthsOf(history.get(id)?.handshakeMs),
      rxBytes,
      txBytes,
      ...(path === undefined ? {} : { path }),
    };
  });
}

function wholeMs(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.round(ms);
}

/** A session outlives its path for a while: with a peer that runs Culvert it takes both to be connected. */
function stateOf(
  tunnel: ReturnType<UserspacePlane['peerStatus']>,
  path: PathsStatus | undefined,
): PeerStatus['state'] {
  if (path !== undefined && path.kind === undefined) {
    return path.state === 'connecting' ? 'connecting' : 'no path';
  }
  if (tunnel?.hasSession === true) return 'connected';
  if (path !== undefined) return 'connecting';
  return tunnel?.isHandshaking === true ? 'connecting' : 'idle';
}

/** Returns what of a status the fleet gets to see. */
export function deviceStateOf({ peers, resources, drops }: Status, unixMs: number): DeviceState {
  return {
    peers: peers.map((peer) => ({
      id: peer.id,
      path: peer.state === 'connected' ? (peer.path?.kind ?? 'direct') : 'none',
      ...(peer.endpoint === undefined ? {} : { remote: peer.path?.remote ?? peer.endpoint }),
      ...(peer.path?.rttMs === undefined ? {} : { rtt: Math.round(peer.path.rttMs) }),
      ...(peer.lastHandshakeUnixMs === undefined
        ? {}
        : { handshakeAge: Math.max(0, Math.round((unixMs - peer.lastHandshakeUnixMs) / 1000)) }),
      received: peer.rxBytes,
      sent: peer.txBytes,
    })),
    ...(resources === undefined ? {} : { resources: resourcesStateOf(resources) }),
    drops,
  };
}

function resourcesStateOf({ used, usable, served, dns }: ResourcesSummary): ResourcesState {
  return { used, usable, served, dns: dns.state };
}
