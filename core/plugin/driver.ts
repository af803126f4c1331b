import type { Deadline } from '../sansio/agent.ts';
import type { Instant } from '../sansio/instant.ts';
import type { Log } from '../sansio/log.ts';
import type { Clock } from './clock.ts';
import type { FlightRecorder } from './flight-recorder.ts';

/** The root agent as the driver sees it: a sans-IO agent that also gives commands. */
export interface RootAgent<Input, Event, Transmit, Command> {
  handleInput(input: Input, now: Instant): void;
  handleTimeout(now: Instant): void;
  pollTransmit(): Transmit | undefined;
  pollEvent(): Event | undefined;
  pollCommand(): Command | undefined;
  pollTimeout(): Deadline | undefined;
}

/** Where the outputs of the root agent go. */
export interface Effects<Input, Event, Transmit, Command> {
  transmit(transmit: Transmit): void;
  event(event: Event): void;
  /** Carries out a command; an immediate result is returned, a later one comes through `input`. */
  execute(command: Command): Input | undefined;
  /** Sends and writes the packets that the agent has ready in the arena. */
  flushPackets(): void;
}

/** Rounds of one wake-up before other work of the process gets its turn. */
const MOST_ROUNDS = 1000;

/**
 * The loop around the root agent, and the only place that asks for the time: it hands inputs in,
 * drains all outputs, then sets one alarm for the agent's next deadline.
 */
export class Driver<Input, Event, Transmit, Command> {
  readonly #agent: RootAgent<Input, Event, Transmit, Command>;
  readonly #effects: Effects<Input, Event, Transmit, Command>;
  readonly #clock: Clock;
  readonly #recorder: FlightRecorder<Input>;
  readonly #log: Log;
  #running = false;
  #stopped = false;
  /** When the alarm rings; never after the next deadline. */
  #armed: Instant | undefined;
  readonly #onAlarm = (): void => {
    this.#armed = undefined;
    this.drain();
  };

  constructor(options: {
    readonly agent: RootAgent<Input, Event, Transmit, Command>;
    readonly effects: Effects<Input, Event, Transmit, Command>;
    readonly clock: Clock;
    readonly recorder: FlightRecorder<Input>;
    readonly log: Log;
  }) {
    this.#agent = options.agent;
    this.#effects = options.effects;
    this.#clock = options.clock;
    this.#recorder = options.recorder;
    this.#log = options.log;
  }

  /** Hands one input to the agent and drains it. */
  input(input: Input): void {
    if (this.#stopped) return;
    this.#handle(input, this.#clock.now());
    this.drain();
  }

  /** Drains the agent after something outside `input` changed it, such as a batch of packets. */
  drain(): void {
    if (this.#running || this.#stopped) return;
    this.#running = true;
    try {
      this.#drain();
    } finally {
      this.#running = false;
    }
  }

  /** Ends the loop; later inputs are ignored. */
  stop(): void {
    this.#stopped = true;
    this.#clock.cancelAlarm();
  }

  #drain(): void {
    for (let round = 0; round < MOST_ROUNDS; round++) {
      // What is queued is due at once: taken out first, it costs no look at all the timers.
      if (this.#drainOutputs()) continue;
      const next = this.#agent.pollTimeout();
      const now = this.#clock.now();
      if (!isDue(next, now)) return this.#arm(next);
      this.#agent.handleTimeout(now);
    }
    this.#log.warn('event loop budget spent', { reason: this.#agent.pollTimeout()?.reason });
    this.#clock.soon(() => this.drain());
  }

  #drainOutputs(): boolean {
    const transmitted = this.#drainTransmits();
    const executed = this.#drainCommands();
    const reported = this.#drainEvents();
    this.#effects.flushPackets();
    return transmitted || executed || reported;
  }

  #drainTransmits(): boolean {
    let worked = false;
    for (;;) {
      const transmit = this.#agent.pollTransmit();
      if (transmit === undefined) return worked;
      this.#effects.transmit(transmit);
      worked = true;
    }
  }

  #drainCommands(): boolean {
    let worked = false;
    for (;;) {
      const command = this.#agent.pollCommand();
      if (command === undefined) return worked;
      const result = this.#effects.execute(command);
      if (result !== undefined) this.#handle(result, this.#clock.now());
      worked = true;
    }
  }

  #drainEvents(): boolean {
    let worked = false;
    for (;;) {
      const event = this.#agent.pollEvent();
      if (event === undefined) return worked;
      this.#effects.event(event);
      worked = true;
    }
  }

  #handle(input: Input, now: Instant): void {
    this.#recorder.record(input, now);
    this.#agent.handleInput(input, now);
  }

  /**
   * Sets the alarm only where the deadline comes nearer. Batches of packets mostly move it away: then the
   * alarm rings early, and is set again.
   */
  #arm(next: Deadline | undefined): void {
    if (next === undefined) {
      if (this.#armed !== undefined) this.#clock.cancelAlarm();
      this.#armed = undefined;
    } else if (this.#armed === undefined || next.at < this.#armed) {
      this.#armed = next.at;
      this.#clock.alarm(next.at, this.#onAlarm);
    }
  }
}

function isDue(deadline: Deadline | undefined, now: Instant): boolean {
  return deadline !== undefined && deadline.at <= now;
}
