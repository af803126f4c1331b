import { parseName, type Name } from '../config/name.ts';

/**
 * Topics of a device are `culvert/1/<fleet>/<device>/<kind>`, so that an access list of the broker can tie
 * a device to its own. `desired` is written by operators, the others by the device; all are retained.
 */
export type TopicKind = 'desired' | 'reported' | 'presence' | 'state';

export interface KindTopic {
  readonly fleet: Name;
  readonly device: Name;
  readonly kind: TopicKind;
}

/**
 * `culvert/1/<fleet>/<device>/signal/<from>`: a sealed signal to a device, written by its peer `from`. It
 * is not retained, since it is of no use to a device that comes later.
 */
export interface SignalTopic {
  readonly fleet: Name;
  /** Who it is for. */
  readonly device: Name;
  readonly kind: 'signal';
  readonly from: Name;
}

export type DeviceTopic = KindTopic | SignalTopic;

export function formatTopic(topic: DeviceTopic): string {
  const { fleet, device, kind } = topic;
  const path = `${ROOT}/${fleet}/${device}/${kind}`;
  return kind === 'signal' ? `${path}/${topic.from}` : path;
}

/** Returns the filter for this kind of topic of one device, or of all where none is named. */
export function topicFilter(
  fleet: Name,
  device: Name | undefined,
  kind: TopicKind | 'signal',
): string {
  const path = `${ROOT}/${fleet}/${device ?? '+'}/${kind}`;
  return kind === 'signal' ? `${path}/+` : path;
}

export function parseTopic(topic: string): DeviceTopic | undefined {
  const parts = topic.split('/', 7);
  if (`${parts[0]}/${parts[1]}` !== ROOT) return undefined;
  const fleet = parseName(parts[2] ?? '');
  const device = parseName(parts[3] ?? '');
  if (fleet === undefined || device === undefined) return undefined;
  if (parts[4] === 'signal') {
    const from = parseName(parts[5] ?? '');
    if (from === undefined || parts.length !== 6) return undefined;
    return { fleet, device, kind: 'signal', from };
  }
  const kind = KINDS.find((known) => known === parts[4]);
  return kind === undefined || parts.length !== 5 ? undefined : { fleet, device, kind };
}

const ROOT = 'culvert/1';
const KINDS: readonly TopicKind[] = ['desired', 'reported', 'presence', 'state'];
