import type { ControlChannel, ControlEvent } from '../../core/plugin/control-channel.ts';
import { nullLog, type Log } from '../../core/sansio/log.ts';
import { encodeHex } from '../../core/sansio/hex.ts';
import { randomBytes } from '../../core/sansio/random.ts';
import type { Command, Values } from './command.ts';
import { listOption, readTextFile, textOption } from './options.ts';
import { UsageError, type OperatorWorld } from './world.ts';

/** The options of every command that talks to a broker. */
export const brokerOptions: Command['options'] = {
  broker: { type: 'string', multiple: true },
  ca: { type: 'string' },
  cert: { type: 'string' },
  key: { type: 'string' },
  username: { type: 'string' },
  'password-file': { type: 'string' },
  'device-key': { type: 'string', multiple: true },
};

export const brokerHelp = `  --broker URL             mqtt://host:port or mqtts://host:port; may be given again
  --ca, --cert, --key FILE PEM files for TLS: authority, our certificate and its key
  --username NAME, --password-file FILE
  --device-key DEVICE=KEY  signing key of a device, from culvert keygen there; may be given again
`;

/** Connects as the options say. What goes wrong on the way is said once on stderr. */
export function connect(
  values: Values,
  world: OperatorWorld,
  subscriptions: readonly string[],
  onEvent: (event: ControlEvent) => void,
): ControlChannel {
  const brokers = listOption(values, 'broker');
  if (brokers.length === 0) throw new UsageError('--broker is missing');
  const pem = (option: string): string | undefined => {
    const path = textOption(values, option);
    return path === undefined ? undefined : readTextFile(path);
  };
  const channel = world.createChannel(sayingLog(world));
  const connected = channel.connect({
    brokers,
    clientId: `culvert-fleet-${encodeHex(randomBytes(world.random, 8))}`,
    ca: pem('ca'),
    certificate: pem('cert'),
    privateKey: pem('key'),
    username: textOption(values, 'username'),
    password: pem('password-file')?.replace(/\r?\n$/, ''),
    subscriptions,
    onEvent,
  });
  if (!connected.ok) throw new UsageError('--broker must be mqtt://host:port or mqtts://host:port');
  return channel;
}

/** Says what the channel warns of: it names the cure. */
function sayingLog(world: OperatorWorld): Log {
  const log: Log = {
    ...nullLog,
    warn: (message, fields) => world.say(`${message}: ${String(fields?.['why'] ?? '')}\n`),
    with: () => log,
  };
  return log;
}
