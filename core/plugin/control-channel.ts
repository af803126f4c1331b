import type { Outcome } from '../sansio/outcome.ts';
import { capability, type Capability } from './capability.ts';

/** A message for the broker. `expiry` is MQTT 5's message expiry in seconds; 3.1.1 has none. */
export interface Publication {
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly retain: boolean;
  readonly qos: 0 | 1;
  readonly expiry?: number;
}

export type ControlEvent =
  | { readonly type: 'connected'; readonly broker: string; readonly protocol: '5' | '3.1.1' }
  | { readonly type: 'disconnected'; readonly why: string }
  | { readonly type: 'message'; readonly topic: string; readonly payload: Uint8Array };

export interface ControlOptions {
  /** URLs in order of preference: mqtt:// or mqtts://. */
  readonly brokers: readonly string[];
  readonly clientId: string;
  /** PEM texts for TLS. */
  readonly ca: string | undefined;
  readonly certificate: string | undefined;
  readonly privateKey: string | undefined;
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** Topic filters, subscribed with QoS 1 after each connect. */
  readonly subscriptions: readonly string[];
  /** Makes the will for the connection that is about to be made; a listener has none. */
  will?(): Publication;
  onEvent(event: ControlEvent): void;
}

/**
 * The message channel to the fleet. It reconnects for ever by itself with full-jitter backoff, moves on
 * to the next broker, tries MQTT 5 and falls back to 3.1.1 where a broker refuses it. It is not trusted
 * with anything: what goes over it is signed by its users.
 */
export interface ControlChannel {
  connect(options: ControlOptions): Outcome<void, 'bad-options'>;
  /**
   * Queues a publication. While disconnected only the newest retained one per topic is kept; others
   * are dropped and counted.
   */
  publish(publication: Publication): void;
  /**
   * The network changed: finds out within 2 s whether the broker is still there, and connects anew at once
   * where it is not.
   */
  checkConnection(): void;
  /** Waits up to `graceMs` for what is queued, then closes without sending the will. */
  close(graceMs: number): Promise<void>;
}

export const controlChannel: Capability<ControlChannel> = capability('control-channel');
