import { parseArgs } from 'node:util';
import { parseBootstrap } from '../core/config/bootstrap.ts';
import { parseConfiguration } from '../core/config/configuration.ts';
import type { Severity } from '../core/sansio/log.ts';
import type { View } from './command/ask-status.ts';
import { dns } from './command/dns.ts';
import { drain } from './command/drain.ts';
import { flows } from './command/flows.ts';
import { keygen } from './command/keygen.ts';
import { nat } from './command/nat.ts';
import { paths } from './command/paths.ts';
import { resources } from './command/resources.ts';
import { status } from './command/status.ts';
import { readConfigurationFile } from './configuration-file.ts';
import { runDaemon } from './daemon.ts';
import { CommandError, exitCode } from './exit-code.ts';
import { CIPHERS, type CipherName } from './fast-path.ts';
import { keepYoungGenerationSmall } from './heap.ts';
import { HELP } from './help.ts';
import { nativeFile } from './native-file.ts';
import { CONFIGURATION_FILE, LOCAL_SOCKET, STATE_DIRECTORY } from './paths.ts';
import { commit, version } from './version.ts';

/** The entry of the router bundle: `culvert <command>`. */
async function main(parameters: readonly string[]): Promise<void> {
  if (parameters.includes('--help')) return write(HELP);
  const [command = 'help', ...rest] = parameters;
  switch (command) {
    case 'run':
      return run(rest);
    case 'keygen': {
      const { values } = parse(rest, { 'state-dir': TEXT, json: FLAG });
      return write(keygen(values['state-dir'] ?? STATE_DIRECTORY, values.json === true));
    }
    case 'status':
      return status(viewOf(parse(rest, VIEW).values));
    case 'paths': {
      const { values, positionals } = parse(rest, VIEW, 1);
      return paths(viewOf(values), positionals[0]);
    }
    case 'resources': {
      const { values, positionals } = parse(rest, VIEW, 1);
      return resources(viewOf(values), positionals[0]);
    }
    case 'dns':
      return dns(viewOf(parse(rest, VIEW).values));
    case 'nat':
      return nat(viewOf(parse(rest, VIEW).values));
    case 'flows': {
      // What it prints is JSON in any case.
      const { values } = parse(rest, { socket: TEXT, json: FLAG, follow: FLAG });
      const { socket = LOCAL_SOCKET, follow = false } = values;
      return flows({ socket, follow, write });
    }
    case 'drain': {
      const { values } = parse(rest, { socket: TEXT, cancel: FLAG });
      const socket = values.socket ?? LOCAL_SOCKET;
      return drain({ socket, cancel: values.cancel === true, write });
    }
    case 'version':
    case '--version':
      return write(`culvert ${version} (${commit})\n`);
    case 'help':
    case '-h':
      return write(HELP);
    default:
      throw new CommandError('usage', `unknown command '${command}', see: culvert help`);
  }
}

const TEXT = { type: 'string' } as const;
const FLAG = { type: 'boolean' } as const;
type Options = Readonly<Record<string, typeof TEXT | typeof FLAG>>;

const VIEW = { socket: TEXT, json: FLAG, watch: FLAG } as const;

function viewOf(values: { socket?: string; json?: boolean; watch?: boolean }): View {
  const { socket = LOCAL_SOCKET, json = false, watch = false } = values;
  return { socket, json, watch, write };
}

/** At most `names` of the parameters are not options. */
function parse<Given extends Options>(parameters: readonly string[], options: Given, names = 0) {
  try {
    const allowPositionals = names > 0;
    const parsed = parseArgs({ args: [...parameters], options, strict: true, allowPositionals });
    const unexpected = parsed.positionals[names];
    if (unexpected !== undefined) throw new Error(`Unexpected argument '${unexpected}'`);
    return parsed;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new CommandError('usage', `${why}. See: culvert help`, { cause: error });
  }
}

async function run(parameters: readonly string[]): Promise<void> {
  const { values } = parse(parameters, {
    config: TEXT,
    bootstrap: TEXT,
    'state-dir': TEXT,
    socket: TEXT,
    'log-dir': TEXT,
    'log-level': TEXT,
    native: TEXT,
    cipher: TEXT,
  });
  if (values.config !== undefined && values.bootstrap !== undefined) {
    throw new CommandError(
      'usage',
      'a device stands alone (--config) or is in a fleet (--bootstrap)',
    );
  }
  const configurationFile = values.config ?? CONFIGURATION_FILE;
  await runDaemon({
    mode:
      values.bootstrap === undefined
        ? {
            type: 'local',
            configuration: () => readConfigurationFile(configurationFile, parseConfiguration),
          }
        : {
            type: 'fleet',
            bootstrap: readConfigurationFile(values.bootstrap, parseBootstrap),
          },
    stateDirectory: values['state-dir'] ?? STATE_DIRECTORY,
    socket: values.socket ?? LOCAL_SOCKET,
    logDirectory: values['log-dir'],
    logLevel: levelOf(values['log-level']),
    nativeFile: values.native ?? nativeFile(),
    cipher: cipherOf(values.cipher),
  });
}

const LEVELS: readonly Severity[] = ['trace', 'debug', 'info', 'warn', 'error'];

function levelOf(text: string | undefined): Severity | undefined {
  if (text === undefined) return undefined;
  const level = LEVELS.find((known) => known === text);
  if (level !== undefined) return level;
  throw new CommandError('usage', `--log-level is one of ${LEVELS.join(', ')}, not '${text}'`);
}

function cipherOf(text: string | undefined): CipherName | undefined {
  if (text === undefined) return undefined;
  const cipher = CIPHERS.find((known) => known === text);
  if (cipher !== undefined) return cipher;
  throw new CommandError('usage', `--cipher is one of ${CIPHERS.join(', ')}, not '${text}'`);
}

function write(text: string): void {
  // Not before something is written: the log has this descriptor for itself.
  const { stdout } = process;
  if (!stdout.listeners('error').includes(onOutputError)) stdout.on('error', onOutputError);
  stdout.write(text);
}

/** Who reads has read enough, such as `head`. */
function onOutputError(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit(exitCode('ok'));
  throw error;
}

keepYoungGenerationSmall();
main(process.argv.slice(2)).then(
  () => process.exit(exitCode('ok')),
  (error: unknown) => {
    const exit = error instanceof CommandError ? error.exit : 'bug';
    const message = error instanceof CommandError ? error.message : detailsOf(error);
    process.stderr.write(`culvert: ${message}\n`);
    process.exit(exitCode(exit));
  },
);

function detailsOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
