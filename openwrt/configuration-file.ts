import { readFileSync } from 'node:fs';
import { formatConfigurationError, type Parsed } from '../core/config/error.ts';
import { CommandError } from './exit-code.ts';

/** Reads a JSON file through a parser of `core/config`; what is wrong is told with its path. */
export function readConfigurationFile<Value>(
  file: string,
  parse: (json: unknown) => Parsed<Value>,
): Value {
  const parsed = parse(readJson(file));
  if (parsed.ok) return parsed.value;
  const errors = parsed.errors.map((error) => `\n  ${formatConfigurationError(error)}`);
  throw new CommandError('configuration', `${file} is refused:${errors.join('')}`);
}

/** Reads a file of PEM text that the bootstrap names. */
export function readPem(file: string | undefined, what: string): string | undefined {
  return file === undefined ? undefined : readText(file, what);
}

function readJson(file: string): unknown {
  const text = readText(file, 'the configuration');
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new CommandError('configuration', `${file} is not JSON: ${reasonOf(error)}`);
  }
}

function readText(file: string, what: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const { code = String(error) } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'there is no such file' : code;
    throw new CommandError('configuration', `cannot read ${what} from ${file}: ${why}`, {
      cause: error,
    });
  }
}

/** Some of V8's messages show the text around the error, which may be a secret. */
function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/, (\.\.\.)?".*$/s, '');
}
