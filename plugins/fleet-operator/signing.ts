import { writeFileSync } from 'node:fs';
import { formatConfigurationError } from '../../core/config/error.ts';
import { operatorKeyId } from '../../core/fleet/envelope.ts';
import { parseJsonText } from '../../core/fleet/json.ts';
import { signDesired } from '../../core/fleet/operator.ts';
import { decodeBase64, encodeBase64 } from '../../core/sansio/base64.ts';
import { randomBytes } from '../../core/sansio/random.ts';
import { decodeUtf8 } from '../../core/sansio/utf8.ts';
import type { Command } from './command.ts';
import {
  countOption,
  nameOption,
  readFile,
  readTextFile,
  requiredOption,
  textOption,
  timeOption,
} from './options.ts';
import { OperatorError, UsageError, type OperatorWorld } from './world.ts';

export const keygen: Command = {
  summary: 'Makes an operator key and prints its public half.',
  usage: '[--out FILE]',
  help: `  --out FILE  where the private key goes, mode 0600 (operator.key); never overwritten

Whoever holds the private key may configure every device that pins the public one. Put the public key
into operatorKeys of each device's bootstrap.
`,
  options: { out: { type: 'string' } },
  run(values, operands, world) {
    refuseOperands(operands);
    const file = textOption(values, 'out') ?? 'operator.key';
    const privateKey = randomBytes(world.random, 32);
    writeKey(file, privateKey);
    const key = world.crypto.ed25519.publicKey(privateKey);
    const publicKey = encodeBase64(key);
    const keyId = operatorKeyId(key, world.crypto);
    const json = JSON.stringify({ file, publicKey, keyId });
    world.print(values['json'] === true ? `${json}\n` : `${publicKey}\n`);
    world.say(`private key in ${file}; key id ${keyId}\n`);
    return Promise.resolve(0);
  },
};

export const sign: Command = {
  summary: 'Signs a configuration for one device.',
  usage: '--key FILE --fleet NAME --device NAME --version N [options] [config.json]',
  help: `  --key FILE           private operator key, from culvert-fleet keygen
  --version N          higher than any before: a device never takes an older one
  --not-before TIME    the device holds it back until then: 2026-10-01T12:00:00Z, or +2h
  --not-after TIME     the device takes it up until then; once taken up it holds for ever
  --remove-all-peers   lets a configuration without peers follow one with peers

Reads the configuration from the file or stdin, checks it as the device will, and prints the envelope.
`,
  options: {
    key: { type: 'string' },
    fleet: { type: 'string' },
    device: { type: 'string' },
    version: { type: 'string' },
    'not-before': { type: 'string' },
    'not-after': { type: 'string' },
    'remove-all-peers': { type: 'boolean' },
  },
  async run(values, operands, world) {
    if (operands.length > 1) throw new UsageError('one configuration at a time');
    const version = countOption(values, 'version');
    if (version === undefined) throw new UsageError('--version is missing');
    const notBefore = timeOption(values, 'not-before', world.unixMs());
    const notAfter = timeOption(values, 'not-after', world.unixMs());
    if (notBefore !== undefined && notAfter !== undefined && notAfter < notBefore) {
      throw new UsageError('--not-after lies before --not-before');
    }
    const document = {
      fleet: nameOption(values, 'fleet'),
      device: nameOption(values, 'device'),
      version,
      ...(notBefore !== undefined && { notBefore }),
      ...(notAfter !== undefined && { notAfter }),
      ...(values['remove-all-peers'] === true && { removeAllPeers: true }),
    };
    const privateKey = readKey(requiredOption(values, 'key'));
    const [file = '-'] = operands;
    const configuration = await readConfiguration(file, world);
    const signed = signDesired({ ...document, configuration }, privateKey, world.crypto);
    if (!signed.ok) {
      const lines = signed.errors.map((error) => `\n  ${formatConfigurationError(error)}`);
      throw new OperatorError(
        `${file === '-' ? 'the configuration' : file} is refused:${lines.join('')}`,
      );
    }
    world.print(`${decodeUtf8(signed.value) ?? ''}\n`);
    return 0;
  },
};

async function readConfiguration(file: string, world: OperatorWorld): Promise<unknown> {
  const bytes = file === '-' ? await world.readInput() : readFile(file);
  const configuration = parseJsonText(decodeUtf8(bytes) ?? '');
  if (configuration !== undefined) return configuration;
  throw new OperatorError(`${file === '-' ? 'stdin' : file} is not JSON`);
}

function writeKey(file: string, privateKey: Uint8Array): void {
  try {
    writeFileSync(file, `${encodeBase64(privateKey)}\n`, { mode: 0o600, flag: 'wx' });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    const why = code === 'EEXIST' ? 'it is there already, and stays' : String(code);
    throw new OperatorError(`cannot write ${file}: ${why}`, { cause: error });
  }
}

function readKey(file: string): Uint8Array {
  const key = decodeBase64(readTextFile(file).trim());
  if (key?.length === 32) return key;
  throw new OperatorError(`${file} is not an operator key: 32 bytes in base64`);
}

function refuseOperands(operands: readonly string[]): void {
  if (operands.length > 0) throw new UsageError(`unexpected ${operands.join(' ')}`);
}
