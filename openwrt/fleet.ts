/** The operator's command `culvert-fleet`, for a laptop or a CI job. */
import { createNodeCrypto } from '../plugins/crypto-node/index.ts';
import { createNobleCrypto } from '../plugins/crypto-noble/index.ts';
import { MqttControlChannel } from '../plugins/fleet-mqtt/index.ts';
import { runOperatorCommand } from '../plugins/fleet-operator/index.ts';
import { nodeRandom } from '../plugins/platform-node/index.ts';
import { version } from './version.ts';

/** A person is waiting: retries come sooner than a router's, and nothing stays at the broker. */
const OPERATOR_CHANNEL = { longestRetry: 5_000, sessionExpiry: 0, connectTimeout: 10_000 };

// A reader such as `head` that has seen enough ends the command, without an error.
process.stdout.on('error', () => process.exit());

void runOperatorCommand(process.argv.slice(2), {
  crypto: createNodeCrypto(createNobleCrypto()),
  random: nodeRandom,
  version,
  interrupted: new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
  }),
  createChannel: (log) => new MqttControlChannel(log, OPERATOR_CHANNEL),
  print: (text) => void process.stdout.write(text),
  say: (text) => void process.stderr.write(text),
  readInput,
  unixMs: () => Date.now(),
}).then((code) => (process.exitCode = code));

async function readInput(): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks);
}
