import type { SocketAddress } from '../net/socket-address.ts';

/** What the daemon knows of itself, as `culvert status --json` prints it. Never holds a secret. */
export interface Status {
  readonly phase: Phase;
  readonly interface: InterfaceStatus | undefined;
  readonly fleet: FleetStatus | undefined;
  readonly peers: readonly PeerStatus[];
  /** Packets and datagrams that went nowhere, by reason; reasons never seen are left out. */
  readonly drops: Readonly<Record<string, number>>;
  /** Why the newest configuration is not the running one. */
  readonly lastError: string | undefined;
}

export type Phase = 'waiting for configuration' | 'running' | 'stopping';

export interface InterfaceStatus {
  readonly name: string;
  /** base64 */
  readonly publicKey: string;
  readonly listenPort: number;
  /** Bytes. */
  readonly mtu: number;
  readonly addresses: readonly string[];
}

export interface FleetStatus {
  readonly fleet: string;
  readonly device: string;
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
  readonly state: 'idle' | 'connecting' | 'connected' | 'failed';
  /** Why it is failed, or what the last failed attempt met. */
  readonly cause: string | undefined;
  readonly endpoint: SocketAddress | undefined;
  readonly allowedIps: readonly string[];
  /** Milliseconds since 1970-01-01 UTC. */
  readonly lastHandshakeUnixMs: number | undefined;
  /** Milliseconds from the first handshake message to a working session, last time. */
  readonly handshakeMs: number | undefined;
  readonly rxBytes: number;
  readonly txBytes: number;
}
