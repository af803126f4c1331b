import { parseName, type Name } from '../config/name.ts';

/**
 * Every topic is `culvert/1/<fleet>/<device>/<kind>`, so that an access list of the broker can tie a
 * device to its own. `desired` is written by operators, the others by the device; all are retained.
 */
export type TopicKind = 'desired' | 'reported' | 'presence' | 'state';

export interface DeviceTopic {
  readonly fleet: Name;
  readonly device: Name;
  readonly kind: TopicKind;
}

export function formatTopic({ fleet, device, kind }: DeviceTopic): string {
  return `${ROOT}/${fleet}/${device}/${kind}`;
}

/** Returns the filter for this kind of topic of one device, or of all where none is named. */
export function topicFilter(fleet: Name, device: Name | undefined, kind: TopicKind): string {
  return `${ROOT}/${fleet}/${device ?? '+'}/${kind}`;
}

export function parseTopic(topic: string): DeviceTopic | undefined {
  const parts = topic.split('/', 6);
  if (parts.length !== 5 || `${parts[0]}/${parts[1]}` !== ROOT) return undefined;
  const fleet = parseName(parts[2] ?? '');
  const device = parseName(parts[3] ?? '');
  const kind = KINDS.find((known) => known === parts[4]);
  if (fleet === undefined || device === undefined || kind === undefined) return undefined;
  return { fleet, device, kind };
}

const ROOT = 'culvert/1';
const KINDS: readonly TopicKind[] = ['desired', 'reported', 'presence', 'state'];
