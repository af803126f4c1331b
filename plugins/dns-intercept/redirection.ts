import { networkInterfaces } from 'node:os';
import type { IpFamily } from '../../core/net/ip-address.ts';
import { Priority } from '../../core/netlink/nftables/chain.ts';
import {
  destinationPort,
  inputInterface,
  isFamily,
  Protocol,
} from '../../core/netlink/nftables/match.ts';
import { redirectTo, rule } from '../../core/netlink/nftables/statement.ts';
import type { WantedTable } from '../../core/netlink/nftables/wanted-ruleset.ts';
import type { Conntrack } from '../../core/plugin/conntrack.ts';
import type {
  InterceptionFailure,
  WantedInterception,
} from '../../core/plugin/dns-interception.ts';
import type { Ruleset, RulesetFailure } from '../../core/plugin/ruleset.ts';
import type { Log } from '../../core/sansio/log.ts';
import { isAnswering } from './probe.ts';

const DNS_PORT = 53;
const TABLE = { family: 'inet', name: 'culvert_dns' } as const;
const PROTOCOLS = [Protocol.udp, Protocol.tcp];

/**
 * Brings to our port what comes in from the LAN for port 53 of anybody, by a table that vanishes with the
 * process. Queries of the router itself do not come in, so ours to other servers do not come back.
 *
 * The kernel redirects to an address of the interface that the query came in by, or drops where it has
 * none: there are rules only for the interfaces and families that are answered there. The others keep
 * whom they ask.
 */
export class Redirection {
  readonly #ruleset: Ruleset;
  readonly #conntrack: Conntrack;
  readonly #log: Log;
  #table: WantedTable | undefined;
  #endMonitor: () => void = () => undefined;

  constructor(ruleset: Ruleset, conntrack: Conntrack, log: Log) {
    this.#ruleset = ruleset;
    this.#conntrack = conntrack;
    this.#log = log;
  }

  /** Redirects what is answered, and ends what is not any more. Fails where that is everything. */
  async begin({
    interfaces,
    port,
  }: Extract<WantedInterception, { type: 'redirect' }>): Promise<InterceptionFailure | undefined> {
    const entries = entriesOf(interfaces);
    const areAnswered = await Promise.all(entries.map((entry) => isAnswered(entry, port)));
    const answered = entries.filter((_, i) => areAnswered[i]);
    const failure =
      answered.length > 0
        ? this.#put(tableOf(answered, port))
        : noAnswer(interfaces, port, entries.length > 0);
    if (failure !== undefined) {
      this.end();
      return failure;
    }
    for (const { name, family } of entries.filter((_, i) => !areAnswered[i])) {
      this.#log.debug('nobody answers there: not redirected', { interface: name, family });
    }
    this.#endMonitor = this.#monitor();
    return undefined;
  }

  end(): void {
    if (this.#table === undefined) return;
    this.#endMonitor();
    this.#table = undefined;
    this.#ruleset.clear([TABLE]);
    this.#forgetConnections();
  }

  #put(table: WantedTable): InterceptionFailure | undefined {
    const applied = this.#ruleset.apply([table]);
    if (!applied.ok) return { why: applied.why, detail: explain(applied.failures) };
    this.#table = table;
    if (applied.value.changes > 0) this.#forgetConnections();
    return undefined;
  }

  #monitor(): () => void {
    this.#endMonitor();
    return this.#ruleset.monitor(() => {
      if (this.#table === undefined) return;
      const failure = this.#put(this.#table);
      if (failure !== undefined) this.#log.warn('DNS is not redirected any more', { ...failure });
    });
  }

  /** What is under way would go on to the server that it began with, a UDP port for as long as it is used. */
  #forgetConnections(): void {
    for (const protocol of PROTOCOLS) {
      const filter = { protocol, original: { destinationPort: DNS_PORT } };
      const removed = this.#conntrack.removeAll(filter);
      if (!removed.ok) this.#log.warn('clients may keep their server', { why: removed.why });
    }
  }
}

/** An interface and a family that it has addresses of. */
interface Entry {
  readonly name: string;
  readonly family: IpFamily;
  readonly hosts: readonly string[];
}

function entriesOf(interfaces: readonly string[]): readonly Entry[] {
  const present = Object.entries(networkInterfaces());
  return [...new Set(interfaces)].flatMap((name) =>
    ([4, 6] as const).flatMap((family) => {
      const hosts = present
        // An address with a label of its own is listed under that: `br-lan:1`.
        .filter(([label]) => label.split(':')[0] === name)
        .flatMap(([, addresses = []]) => addresses)
        .filter((one) => one.family === `IPv${family}`)
        .map(({ address }) => (/^fe[89ab]/.test(address) ? `${address}%${name}` : address));
      return hosts.length === 0 ? [] : [{ name, family, hosts }];
    }),
  );
}

/** Of an interface's IPv4 addresses the kernel takes the first one (nf_nat_redirect_ipv4). */
async function isAnswered({ family, hosts }: Entry, port: number): Promise<boolean> {
  const asked = family === 4 ? hosts.slice(0, 1) : hosts;
  return (await Promise.all(asked.map((host) => isAnswering(host, port)))).includes(true);
}

function noAnswer(
  interfaces: readonly string[],
  port: number,
  haveAddresses: boolean,
): InterceptionFailure {
  const what = haveAddresses ? `nobody answers at ${port}` : 'no address to listen at';
  return { why: 'no-answer', detail: `${what} on: ${interfaces.join(', ')}` };
}

function tableOf(entries: readonly Entry[], port: number): WantedTable {
  const rules = entries.flatMap(({ name, family }) =>
    PROTOCOLS.map((protocol) =>
      rule(
        inputInterface(name),
        isFamily(family),
        destinationPort(protocol, DNS_PORT),
        redirectTo(port),
      ),
    ),
  );
  // Before the port forwards of fw4, which are at -100.
  const priority = Priority.destinationNat - 5;
  const base = { type: 'nat', hook: 'prerouting', priority } as const;
  return { ...TABLE, isOwned: true, chains: [{ name: 'lan', base, rules }] };
}

function explain(failures: readonly RulesetFailure[]): string {
  const text = failures.map(({ object, message }) => `${object}: ${message}`).join('; ');
  // Kernels before 5.12 take the owner flag for nonsense. Without it a crash would leave the LAN without DNS.
  const isOld = failures.some(
    ({ object, code }) => object.startsWith('table ') && code !== 'EPERM',
  );
  return isOld ? `${text} (redirect needs Linux 5.12 or newer: use dnsmasq)` : text;
}
