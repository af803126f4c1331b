import * as v from 'valibot';
import type { Observation } from '../../core/fleet/operator.ts';

/** Renders one message of a device as one line for people. */
export function formatObservation(observation: Observation): string {
  if (observation.type === 'ignored') {
    return printable(`ignored ${observation.topic}: ${IGNORED[observation.why]}`);
  }
  const { device, kind, isVerified, publication } = observation;
  const mark = isVerified ? '' : ' (unverified)';
  const body = FORMATS[kind](publication.payload) ?? JSON.stringify(publication.payload);
  return printable(`${device}${mark} ${kind} ${body}`);
}

/** The same for programs: one JSON object. */
export function observationJson(observation: Observation): string {
  if (observation.type === 'ignored') {
    return JSON.stringify({ ignored: observation.topic, why: observation.why });
  }
  const { device, kind, isVerified, publication } = observation;
  return JSON.stringify({ device, kind, verified: isVerified, ...publication });
}

const IGNORED: Readonly<Record<Extract<Observation, { type: 'ignored' }>['why'], string>> = {
  'other-topic': 'not of this fleet',
  empty: 'deleted',
  'too-large': 'too large',
  malformed: 'not in the form of a device’s message',
  'bad-signature': 'the signature is not that of the pinned key',
  replayed: 'older than what the device said before',
  repeated: 'seen before',
};

// Other versions of the daemon may say more or less: what does not read is shown as it is.
const presence = v.looseObject({
  state: v.string(),
  session: v.string(),
  software: v.string(),
});

const reported = v.looseObject({
  phase: v.string(),
  seenVersion: v.optional(v.number()),
  appliedVersion: v.optional(v.number()),
  why: v.optional(v.string()),
  errors: v.optional(v.array(v.looseObject({ path: v.string(), message: v.string() }))),
  local: v.optional(v.record(v.string(), v.union([v.string(), v.number()]))),
});

const state = v.looseObject({
  peers: v.array(
    v.looseObject({
      id: v.string(),
      path: v.string(),
      remote: v.optional(v.string()),
      rtt: v.optional(v.number()),
      handshakeAge: v.optional(v.number()),
      received: v.number(),
      sent: v.number(),
    }),
  ),
  drops: v.record(v.string(), v.number()),
});

const FORMATS: Readonly<
  Record<
    Extract<Observation, { type: 'published' }>['kind'],
    (payload: unknown) => string | undefined
  >
> = {
  presence: (payload) => {
    const read = v.safeParse(presence, payload);
    return read.success ? `${read.output.state} (culvert ${read.output.software})` : undefined;
  },
  reported: (payload) => {
    const read = v.safeParse(reported, payload);
    if (!read.success) return undefined;
    const { phase, seenVersion, appliedVersion, why, errors = [], local = {} } = read.output;
    return [
      phase,
      ...(seenVersion === undefined ? [] : [`version ${seenVersion}`]),
      ...(why === undefined ? [] : [`(${why})`]),
      `running ${appliedVersion ?? 'none'}`,
      ...errors.map(({ path, message }) => `; ${path}: ${message}`),
      ...Object.entries(local).map(([key, value]) => `; interface.${key} is its own: ${value}`),
    ].join(' ');
  },
  state: (payload) => {
    const read = v.safeParse(state, payload);
    if (!read.success) return undefined;
    const { peers, drops } = read.output;
    const up = peers.filter(({ path }) => path !== 'none').length;
    const dropped = Object.values(drops).reduce((sum, count) => sum + count, 0);
    const lines = peers.map(
      ({ id, path, remote = '', rtt, handshakeAge, received, sent }) =>
        `\n    ${id} ${path} ${remote}` +
        (rtt === undefined ? '' : ` rtt ${Math.round(rtt)} ms`) +
        (handshakeAge === undefined ? '' : ` handshake ${Math.round(handshakeAge)} s ago`) +
        ` rx ${received} tx ${sent}`,
    );
    return `${up} of ${peers.length} peers up, ${dropped} packets dropped${lines.join('')}`;
  },
};

/** A message may come from anyone: what could move a cursor or hide text becomes `?`. */
function printable(text: string): string {
  return text.replace(/[^\P{C}\n]/gu, '?');
}
