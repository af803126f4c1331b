/*
 * A program on a router: a listener with the stub resolver behind it, and the interception. It goes through
 * the steps in its parameter (JSON), the next one at each SIGUSR2, and prints what came of each. Names that
 * are no resource's are answered 9.9.9.53, which shows who was asked.
 */
import { addressRecord, encodeAnswer, encodeNegative } from '../../core/dns/answer.ts';
import { RCODE, TYPE } from '../../core/dns/numbers.ts';
import { StubResolver } from '../../core/dns/stub-resolver.ts';
import type { WantedInterception } from '../../core/plugin/dns-interception.ts';
import type { WantedDnsListener } from '../../core/plugin/dns-listener.ts';
import { dnsInterception } from '../../core/plugin/dns-interception.ts';
import { dnsListener } from '../../core/plugin/dns-listener.ts';
import { native } from '../../core/plugin/native.ts';
import type { PluginHost } from '../../core/plugin/plugin.ts';
import { nullLog } from '../../core/sansio/log.ts';
import { createDnsInterception, type DnsmasqPlace } from '../../plugins/dns-intercept/index.ts';
import { createDnsListener } from '../../plugins/dns-listener/index.ts';
import { createConntrack, createRuleset } from '../../plugins/netlink/index.ts';
import { loadNative } from '../../plugins/platform-node/index.ts';
import { pool, resources } from '../core/dns/messages.ts';

export interface Step {
  readonly listen?: WantedDnsListener;
  readonly intercept: WantedInterception;
}

export interface Parameters {
  readonly steps: readonly Step[];
  readonly dnsmasq: DnsmasqPlace;
  /** The file with the system calls. */
  readonly native: string;
}

const { steps, dnsmasq, native: file } = JSON.parse(process.argv[2] ?? '') as Parameters;
const calls = loadNative(file);
if ('skip' in calls) throw new Error(calls.skip);
const made = new Map<string, unknown>([[native.name, calls]]);
const host = {
  log: nullLog,
  clock: { soon: (onYield: () => void) => void setImmediate(onYield) },
  use: (wanted: { readonly name: string }) => made.get(wanted.name),
} as PluginHost;
const plugins = [
  createRuleset(),
  createConntrack(),
  createDnsListener(),
  createDnsInterception({ dnsmasq }),
].map((definition) => {
  const plugin = definition.create(host);
  if ('skip' in plugin) throw new Error(plugin.skip);
  made.set(definition.provides.name, plugin.api);
  return plugin;
});
const patterns = { '*.corp.example': 'dual', '*.v4.example': 'ipv4-only' } as const;
const stub = new StubResolver(resources(patterns), pool());
const listener = host.use(dnsListener);
listener.listenTo(({ client, bytes }) => {
  const decision = stub.decide(bytes);
  if (decision.type === 'answer') listener.respond(client, decision.bytes);
  if (decision.type !== 'forward') return;
  const { query } = decision;
  const answer =
    query.question.type === TYPE.A
      ? encodeAnswer(query, [addressRecord(Uint8Array.of(9, 9, 9, 53), 60)])
      : encodeNegative(query, RCODE.NOERROR, 60);
  listener.respond(client, answer);
});

let next = 0;
async function advance(): Promise<void> {
  const number = next++;
  const step = steps[number];
  if (step === undefined) return;
  const unheard = step.listen && (await listener.listen(step.listen));
  const failure = await host.use(dnsInterception).apply(step.intercept);
  console.log(`step ${number} ${JSON.stringify({ unheard, failure })}`);
}
process.on('SIGUSR2', () => void advance());
process.on('SIGTERM', () => {
  void (async () => {
    for (const plugin of plugins.reverse()) await plugin.stop();
    process.exit();
  })();
});
setInterval(() => undefined, 1000);
await advance();
