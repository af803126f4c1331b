import { parseConfiguration } from '../config/configuration.ts';
import { LIMITS } from '../config/defaults.ts';
import type { ConfigurationError, Parsed } from '../config/error.ts';
import type { Name } from '../config/name.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { encodeUtf8 } from '../sansio/utf8.ts';
import { openPublication, type DevicePublication } from './device-signature.ts';
import { signEnvelope } from './envelope.ts';
import type { Presence } from './report.ts';
import { parseTopic, type TopicKind } from './topics.ts';

/** What an operator signs for one device. The times are seconds since 1970-01-01 UTC. */
export interface DesiredDocument {
  readonly fleet: Name;
  readonly device: Name;
  readonly version: number;
  readonly notBefore?: number;
  readonly notAfter?: number;
  readonly removeAllPeers?: boolean;
  /** JSON of a configuration, not yet checked. */
  readonly configuration: unknown;
}

/** Checks the configuration as the device will, and returns the signed envelope. */
export function signDesired(
  { configuration, ...rest }: DesiredDocument,
  privateKey: Uint8Array,
  crypto: Crypto,
): Parsed<Uint8Array> {
  const parsed = parseConfiguration(configuration);
  if (!parsed.ok) return parsed;
  const body = encodeUtf8(JSON.stringify({ schema: 1, ...rest, configuration }));
  if (body.length > LIMITS.documentBytes) {
    return refused({ path: '', message: `is larger than ${LIMITS.documentBytes} bytes` });
  }
  return { ok: true, value: signEnvelope(body, privateKey, crypto) };
}

/** What an operator may make of one message of a device. */
export type Observation =
  | {
      readonly type: 'published';
      readonly device: Name;
      readonly kind: Exclude<TopicKind, 'desired'>;
      /** Without a pinned key of the device anyone at the broker may have written it. */
      readonly isVerified: boolean;
      readonly publication: DevicePublication;
    }
  | { readonly type: 'ignored'; readonly topic: string; readonly why: IgnoredReason };

export type IgnoredReason =
  | 'other-topic'
  /** A retained message was deleted. */
  | 'empty'
  | 'too-large'
  | 'malformed'
  | 'bad-signature'
  /** Older than what the device said before, or a will of an earlier connection. */
  | 'replayed'
  /** The message that was seen last, again: brokers send retained ones with each subscription. */
  | 'repeated';

interface Seen {
  readonly boot: number;
  readonly seq: number;
  readonly session: unknown;
}

/**
 * Reads what devices of one fleet publish, and tells the old and the forged from the new. It starts
 * without memory: what a broker shows first may be old, what follows it is newer.
 */
export class DeviceObserver {
  readonly #fleet: Name;
  readonly #deviceKeys: ReadonlyMap<string, Uint8Array>;
  readonly #crypto: Crypto;
  /** By device and kind; only devices with a pinned key get in, so it is bounded by their number. */
  readonly #seen = new Map<string, Seen>();
  readonly #boots = new Map<string, number>();

  constructor(fleet: Name, deviceKeys: ReadonlyMap<string, Uint8Array>, crypto: Crypto) {
    this.#fleet = fleet;
    this.#deviceKeys = deviceKeys;
    this.#crypto = crypto;
  }

  handleMessage(topic: string, message: Uint8Array): Observation {
    const parsed = parseTopic(topic);
    if (parsed === undefined || parsed.fleet !== this.#fleet) {
      return { type: 'ignored', topic, why: 'other-topic' };
    }
    // What an operator wrote, and what is sealed between devices.
    if (parsed.kind === 'desired' || parsed.kind === 'signal') {
      return { type: 'ignored', topic, why: 'other-topic' };
    }
    if (message.length === 0) return { type: 'ignored', topic, why: 'empty' };
    const { device, kind } = parsed;
    const publicKey = this.#deviceKeys.get(device);
    const opened = openPublication(topic, message, publicKey, this.#crypto);
    if (!opened.ok) return { type: 'ignored', topic, why: opened.why };
    const publication = opened.value;
    if (publicKey !== undefined) {
      const age = this.#ageOf(device, kind, publication);
      if (age !== 'new') return { type: 'ignored', topic, why: age };
    }
    return { type: 'published', device, kind, isVerified: publicKey !== undefined, publication };
  }

  #ageOf(
    device: Name,
    kind: TopicKind,
    { boot, seq, payload }: DevicePublication,
  ): 'new' | 'repeated' | 'replayed' {
    const place = `${device}/${kind}`;
    const last = this.#seen.get(place);
    const session = payload['session'];
    const isLost = kind === 'presence' && payload['state'] === ('lost' satisfies Presence['state']);
    if (boot < (this.#boots.get(device) ?? 0)) return 'replayed';
    if (last !== undefined && boot === last.boot && seq <= last.seq) {
      if (seq === last.seq) return 'repeated';
      // A will is signed when the connection is made, before all that it is the last word on.
      if (!isLost || session !== last.session) return 'replayed';
    }
    this.#boots.set(device, boot);
    const isSameBoot = last !== undefined && last.boot === boot;
    this.#seen.set(place, { boot, seq: isSameBoot ? Math.max(seq, last.seq) : seq, session });
    return 'new';
  }
}

function refused(error: ConfigurationError): { ok: false; errors: readonly ConfigurationError[] } {
  return { ok: false, errors: [error] };
}
