import { parseArgs, type ParseArgsConfig } from 'node:util';
import { keygen, sign } from './signing.ts';
import { push } from './push.ts';
import { watch } from './watch.ts';
import { OperatorError, UsageError, type OperatorWorld } from './world.ts';

/** What `parseArgs` makes of the options: text, a list of texts, or whether it is there. */
export type Values = Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;

export interface Command {
  readonly summary: string;
  /** Behind `culvert-fleet <name>`. */
  readonly usage: string;
  /** The text for people below the usage: options, then what to know. */
  readonly help: string;
  readonly options: NonNullable<ParseArgsConfig['options']>;
  /** Returns the exit code. */
  run(values: Values, operands: readonly string[], world: OperatorWorld): Promise<number>;
}

const COMMANDS: Readonly<Record<string, Command>> = { keygen, sign, push, watch };

/** Runs `culvert-fleet <args>`. Exit codes: 0 success, 1 failure, 2 wrong command line. */
export async function runOperatorCommand(
  args: readonly string[],
  world: OperatorWorld,
): Promise<number> {
  const [name = 'help', ...rest] = args;
  try {
    if (name === 'version' || name === '--version') return printVersion(rest, world);
    if (name === 'help' || name === '--help' || name === '-h') return printHelp(rest[0], world);
    const command = commandNamed(name);
    if (rest.includes('--help') || rest.includes('-h')) return printHelp(name, world);
    const { values, positionals } = parse(command, rest);
    return await command.run(values, positionals, world);
  } catch (error) {
    if (error instanceof UsageError) {
      world.say(`culvert-fleet: ${error.message}\nTry: culvert-fleet help\n`);
      return 2;
    }
    if (error instanceof OperatorError) {
      world.say(`culvert-fleet: ${error.message}\n`);
      return 1;
    }
    throw error;
  }
}

function parse(command: Command, args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: { json: { type: 'boolean' }, ...command.options },
      allowPositionals: true,
      strict: true,
    });
  } catch (error) {
    // Node's message names the option; only its first sentence is of use here.
    const [message = ''] = (error instanceof Error ? error.message : String(error)).split('. ');
    throw new UsageError(message, { cause: error });
  }
}

function commandNamed(name: string): Command {
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) throw new UsageError(`there is no command ${name}`);
  return command;
}

function printVersion(rest: readonly string[], world: OperatorWorld): number {
  const isJson = rest.includes('--json');
  world.print(isJson ? `${JSON.stringify({ version: world.version })}\n` : `${world.version}\n`);
  return 0;
}

function printHelp(name: string | undefined, world: OperatorWorld): number {
  if (name !== undefined) {
    const { usage, summary, help } = commandNamed(name);
    world.print(`culvert-fleet ${name} ${usage}\n\n${summary}\n\n${help}`);
    return 0;
  }
  const lines = Object.entries(COMMANDS).map(
    ([command, { summary }]) => `  ${command.padEnd(8)} ${summary}`,
  );
  world.print(`culvert-fleet: drives a fleet of Culvert routers

${lines.join('\n')}
  version  Prints the version.
  help     Prints this, or the help of a command: culvert-fleet help push

Every command takes --json for output that programs read.
Exit codes: 0 success, 1 failure (the message says what), 2 wrong command line.
`);
  return 0;
}
