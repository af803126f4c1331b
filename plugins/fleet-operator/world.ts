import type { ControlChannel } from '../../core/plugin/control-channel.ts';
import type { Crypto } from '../../core/sansio/crypto.ts';
import type { Log } from '../../core/sansio/log.ts';
import type { Random } from '../../core/sansio/random.ts';

/** What the operator's command gets from where it runs. */
export interface OperatorWorld {
  readonly crypto: Crypto;
  readonly random: Random;
  /** `culvert-fleet version` prints it. */
  readonly version: string;
  /** Resolves when the user wants to end. */
  readonly interrupted: Promise<void>;
  /** Makes a channel that leaves no session behind at the broker. */
  createChannel(log: Log): ControlChannel;
  /** The answer of the command: stdout. */
  print(text: string): void;
  /** What is said beside it: stderr. */
  say(text: string): void;
  /** All of stdin. */
  readInput(): Promise<Uint8Array>;
  unixMs(): number;
}

/** The command line is wrong: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The command could not do what it should, for a reason that the user can see to: exit code 1. */
export class OperatorError extends Error {
  override readonly name = 'OperatorError';
}
