import type { LocalInterface } from '../config/bootstrap.ts';
import type { ConfigurationError } from '../config/error.ts';
import type { RefusalReason } from './envelope.ts';

/** Payload of `presence`: retained, and as `lost` the will of each connection. */
export interface Presence {
  readonly state: 'ready' | 'draining' | 'stopped' | 'lost';
  /** Random per connection: tells the will of this connection from a late one of an earlier. */
  readonly session: string;
  /** Version of the daemon. */
  readonly software: string;
}

/** Payload of `reported`: what became of the desired states. */
export interface Reported {
  readonly phase: ReportPhase;
  /** SHA-256 in hexadecimal of the `desired` message that the phase is about. */
  readonly document?: string;
  /** Its version, once its signature was found good. */
  readonly seenVersion?: number;
  /** The version that runs. */
  readonly appliedVersion?: number;
  /** SHA-256 of the `desired` message that runs. */
  readonly appliedDocument?: string;
  /** Of `held` and `refused`. */
  readonly why?: RefusalReason;
  /** Of `failed` and `refused`, with paths into the configuration. */
  readonly errors?: readonly ConfigurationError[];
  /** Values of `interface` that the device has of its own, whatever the document says. */
  readonly local?: LocalInterface;
}

/**
 * `none`: no desired state came yet. `applying`: taken, the daemon is at it. `applied` and `failed`: it
 * said how that went, and a `failed` one runs but for its errors where it is the `appliedVersion`.
 * `held`: good, and waits for its time. `refused`: changed nothing.
 */
export type ReportPhase = 'none' | 'applying' | 'applied' | 'failed' | 'held' | 'refused';

/** Payload of `state`: how the tunnels are. */
export interface DeviceState {
  readonly peers: readonly PeerState[];
  /** Absent where there are none. */
  readonly resources?: ResourcesState;
  /** Packets dropped since the start, by reason. */
  readonly drops: Readonly<Record<string, number>>;
}

export interface PeerState {
  readonly id: string;
  /** How packets travel, as `direct` or `relayed`; `none` without a session. */
  readonly path: string;
  /** Socket address of the other side. */
  readonly remote?: string;
  /** Round trip in milliseconds. */
  readonly rtt?: number;
  /** Seconds since the last handshake; absent before the first. */
  readonly handshakeAge?: number;
  /** Bytes. */
  readonly received: number;
  readonly sent: number;
}

/** How many resources there are, and how they are. */
export interface ResourcesState {
  /** Served by peers. */
  readonly used: number;
  /** Those of them that can be used at present. */
  readonly usable: number;
  /** Served by this device. */
  readonly served: number;
  /** Whether names of resources are answered: `intercepting` is good, `off` where none are to be. */
  readonly dns: string;
}

/** Returns what of a state is worth telling soon: which tunnels are up, and on which path; what can be used. */
export function significanceOf(state: DeviceState): string {
  return JSON.stringify([
    state.resources,
    state.peers.map(({ id, path, remote, handshakeAge }) => [
      id,
      path,
      remote,
      handshakeAge !== undefined,
    ]),
  ]);
}

/** Returns what tells two states apart; the age of a handshake grows by itself and does not. */
export function differenceOf(state: DeviceState): string {
  return JSON.stringify(state, (key, value: unknown) =>
    key === 'handshakeAge' ? undefined : value,
  );
}
