import * as v from 'valibot';
import type { Name } from '../../core/config/name.ts';
import { envelopeHash } from '../../core/fleet/envelope.ts';
import { parseJson, parseJsonText } from '../../core/fleet/json.ts';
import { DeviceObserver, type Observation } from '../../core/fleet/operator.ts';
import { formatTopic, parseTopic } from '../../core/fleet/topics.ts';
import type { ControlEvent } from '../../core/plugin/control-channel.ts';
import { decodeBase64 } from '../../core/sansio/base64.ts';
import { encodeUtf8 } from '../../core/sansio/utf8.ts';
import type { Command, Values } from './command.ts';
import { brokerHelp, brokerOptions, connect } from './connection.ts';
import { formatObservation, observationJson } from './observation.ts';
import { countOption, deviceKeys, nameOf, readTextFile } from './options.ts';
import { OperatorError, UsageError, type OperatorWorld } from './world.ts';

const GOODBYE_MS = 500;
/** Seconds for the broker to take everything, where no other time is given. */
const BROKER_TIMEOUT = 20;

export const push: Command = {
  summary: 'Gives signed configurations to the broker, and waits for the devices.',
  usage: '--broker URL [--wait SECONDS --device-key DEVICE=KEY...] [options] envelope.json...',
  help: `${brokerHelp}  --wait SECONDS           until each device applied its configuration, or refused it
  --unverified             believes devices without a --device-key

Without --wait it succeeds when the broker shows each envelope to its readers; a device that is away
gets it when it comes. With --wait it fails unless every device applied its own.
`,
  options: { ...brokerOptions, wait: { type: 'string' }, unverified: { type: 'boolean' } },
  async run(values, operands, world) {
    if (operands.length === 0) throw new UsageError('no envelope to push');
    const envelopes = operands.map(readEnvelope);
    const fleet = soleFleet(envelopes);
    const wait = countOption(values, 'wait');
    const keys = deviceKeys(values);
    const unknown = envelopes.filter(({ device }) => !keys.has(device));
    if (wait !== undefined && unknown.length > 0 && values['unverified'] !== true) {
      const names = unknown.map(({ device }) => device).join(', ');
      throw new UsageError(
        `--wait needs --device-key DEVICE=KEY for ${names}, or --unverified to believe the broker`,
      );
    }
    const observer = new DeviceObserver(fleet, keys, world.crypto);
    return new Push(values, envelopes, observer, world).run(wait);
  },
};

interface Envelope {
  readonly fleet: Name;
  readonly device: Name;
  readonly version: number;
  readonly bytes: Uint8Array;
}

/** One device: what it was given, and how far it is. */
interface Target extends Envelope {
  readonly hash: string;
  progress: 'sent' | 'at-broker' | 'applied' | 'refused';
}

class Push {
  readonly #values: Values;
  readonly #observer: DeviceObserver;
  readonly #world: OperatorWorld;
  readonly #targets = new Map<string, Target>();
  #goal: 'at-broker' | 'answered' = 'at-broker';
  #onDone: () => void = () => undefined;

  constructor(
    values: Values,
    envelopes: readonly Envelope[],
    observer: DeviceObserver,
    world: OperatorWorld,
  ) {
    this.#values = values;
    this.#observer = observer;
    this.#world = world;
    for (const envelope of envelopes) {
      const hash = envelopeHash(envelope.bytes, world.crypto);
      this.#targets.set(envelope.device, { ...envelope, hash, progress: 'sent' });
    }
  }

  async run(wait: number | undefined): Promise<number> {
    this.#goal = wait === undefined ? 'at-broker' : 'answered';
    const targets = [...this.#targets.values()];
    const filters = targets.flatMap(({ fleet, device }) =>
      (['desired', 'reported'] as const).map((kind) => formatTopic({ fleet, device, kind })),
    );
    const done = new Promise<void>((resolve) => (this.#onDone = resolve));
    const channel = connect(this.#values, this.#world, filters, (event) => this.#onEvent(event));
    for (const { fleet, device, bytes } of targets) {
      const topic = formatTopic({ fleet, device, kind: 'desired' });
      channel.publish({ topic, payload: bytes, retain: true, qos: 1 });
    }
    const seconds = wait ?? BROKER_TIMEOUT;
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => (timer = setTimeout(resolve, seconds * 1000)));
    await Promise.race([done, timeout, this.#world.interrupted]);
    clearTimeout(timer);
    await channel.close(GOODBYE_MS);
    return this.#conclude(seconds);
  }

  #onEvent(event: ControlEvent): void {
    if (event.type !== 'message') return;
    const topic = parseTopic(event.topic);
    const target = this.#targets.get(topic?.device ?? '');
    if (topic === undefined || target === undefined) return;
    if (topic.kind === 'desired') this.#onDesired(target, event.payload);
    else this.#onReported(target, this.#observer.handleMessage(event.topic, event.payload));
    if ([...this.#targets.values()].every(({ progress }) => this.#isDone(progress))) this.#onDone();
  }

  /** The broker shows what it keeps: that, and no acknowledgement, is what devices will get. */
  #onDesired(target: Target, payload: Uint8Array): void {
    if (envelopeHash(payload, this.#world.crypto) !== target.hash) return;
    if (target.progress !== 'sent') return;
    target.progress = 'at-broker';
    this.#print(
      `${target.device} version ${target.version} is at the broker`,
      JSON.stringify({ device: target.device, version: target.version, progress: 'at-broker' }),
    );
  }

  #onReported(target: Target, observation: Observation): void {
    if (this.#goal !== 'answered') return;
    if (observation.type === 'published') {
      // What the device says of other documents is an answer to an earlier push.
      const { document, phase } = observation.publication.payload;
      if (document !== target.hash) return;
      if (phase === 'applied') target.progress = 'applied';
      else if (phase === 'failed' || phase === 'refused') target.progress = 'refused';
    } else if (observation.why === 'repeated') return;
    this.#print(formatObservation(observation), observationJson(observation));
  }

  #isDone(progress: Target['progress']): boolean {
    if (this.#goal === 'answered') return progress === 'applied' || progress === 'refused';
    return progress !== 'sent';
  }

  #conclude(seconds: number): number {
    const targets = [...this.#targets.values()];
    const refused = targets.filter(({ progress }) => progress === 'refused');
    const missing = targets.filter(({ progress }) => !this.#isDone(progress));
    if (refused.length === 0 && missing.length === 0) return 0;
    const names = (list: readonly Target[]): string => list.map(({ device }) => device).join(', ');
    const lost = missing.filter(({ progress }) => progress === 'sent');
    const silent = missing.filter(({ progress }) => progress !== 'sent');
    throw new OperatorError(
      [
        ...(refused.length > 0 ? [`not applied by ${names(refused)}`] : []),
        ...(lost.length > 0
          ? [`the broker did not take the configuration of ${names(lost)} within ${seconds} s`]
          : []),
        ...(silent.length > 0 ? [`no answer from ${names(silent)} within ${seconds} s`] : []),
      ].join('; '),
    );
  }

  #print(text: string, json: string): void {
    this.#world.print(`${this.#values['json'] === true ? json : text}\n`);
  }
}

const envelopeSchema = v.looseObject({ body: v.string() });
const bodySchema = v.looseObject({ fleet: v.string(), device: v.string(), version: v.number() });

function readEnvelope(file: string): Envelope {
  const text = readTextFile(file).trim();
  const envelope = v.safeParse(envelopeSchema, parseJsonText(text));
  const bytes = envelope.success ? decodeBase64(envelope.output.body) : undefined;
  const body = v.safeParse(bodySchema, bytes === undefined ? undefined : parseJson(bytes));
  if (!body.success) throw new OperatorError(`${file} is not an envelope of culvert-fleet sign`);
  const { fleet, device, version } = body.output;
  return {
    fleet: nameOf(fleet, `${file}: fleet`),
    device: nameOf(device, `${file}: device`),
    version,
    bytes: encodeUtf8(text),
  };
}

function soleFleet(envelopes: readonly Envelope[]): Name {
  const fleets = new Set(envelopes.map(({ fleet }) => fleet));
  const devices = new Set(envelopes.map(({ device }) => device));
  const [fleet] = fleets;
  if (fleet === undefined || fleets.size > 1) throw new UsageError('one fleet at a time');
  if (devices.size < envelopes.length) throw new UsageError('one envelope for each device');
  return fleet;
}
