import type { Command } from '../core/engine/command.ts';
import type { CommandResult, Input } from '../core/engine/input.ts';
import type { DnsInput } from '../core/engine/names.ts';
import type { DnsInterception } from '../core/plugin/dns-interception.ts';
import type { DnsListener } from '../core/plugin/dns-listener.ts';
import type { DnsUpstreams } from '../core/plugin/dns-upstreams.ts';
import type { WantedRuleset } from '../core/netlink/nftables/wanted-ruleset.ts';
import type { Ruleset } from '../core/plugin/ruleset.ts';
import type { SystemNames } from '../core/plugin/system-names.ts';
import { unreachable } from '../core/sansio/outcome.ts';

/** The capabilities through which names and the packet filter are reached. */
export interface NamesReach {
  readonly dnsListener: DnsListener;
  readonly dnsUpstreams: DnsUpstreams;
  readonly systemNames: SystemNames;
  /** These two are absent where the kernel has no nf_tables. */
  readonly dnsInterception: DnsInterception | undefined;
  readonly ruleset: Ruleset | undefined;
}

export type NamesCommand = Extract<
  Command,
  {
    readonly type:
      'listen-dns' | 'intercept-dns' | 'read-names' | 'ask-dns' | 'answer-dns' | 'apply-ruleset';
  }
>;

/** The part of the world in which names are asked for. */
export class NamesWorld {
  readonly #reach: NamesReach;
  readonly #onDns: (input: DnsInput) => void;
  readonly #onInput: (input: Input) => void;
  readonly #endMonitors: (() => void)[] = [];
  #isRulesetMonitored = false;
  /** Those that the ruleset is made of. */
  #tables: WantedRuleset = [];

  constructor(options: {
    readonly reach: NamesReach;
    /** What comes over the network. */
    onDns(input: DnsInput): void;
    /** What else happens. */
    onInput(input: Input): void;
  }) {
    this.#reach = options.reach;
    this.#onDns = (input) => options.onDns(input);
    this.#onInput = (input) => options.onInput(input);
    const { dnsListener, dnsUpstreams } = options.reach;
    dnsListener.listenTo((query) => this.#onDns({ type: 'query', query }));
    dnsUpstreams.listenTo({
      onAnswer: (datagram) => this.#onDns({ type: 'answer', datagram }),
      onFailure: (failure) => this.#onDns({ type: 'failure', failure }),
    });
  }

  execute(command: NamesCommand): CommandResult | undefined {
    switch (command.type) {
      case 'answer-dns':
        this.#reach.dnsListener.respond(command.client, command.bytes);
        return undefined;
      case 'ask-dns':
        this.#reach.dnsUpstreams.send(command.transmit);
        return undefined;
      case 'listen-dns':
        return this.#listen(command);
      case 'intercept-dns':
        return this.#intercept(command);
      case 'read-names':
        return this.#readNames();
      case 'apply-ruleset':
        return this.#applyRuleset(command);
      default:
        return unreachable(command);
    }
  }

  /** Stops delivering what happens outside, and takes back what would outlive the process. */
  detach(): void {
    for (const end of this.#endMonitors.splice(0)) end();
    this.#reach.ruleset?.clear(this.#tables);
  }

  #listen({ wanted }: Extract<Command, { type: 'listen-dns' }>): undefined {
    void this.#reach.dnsListener
      .listen(wanted)
      .then((failures) => this.#onInput({ type: 'dns-listening', failures }));
  }

  #intercept({ wanted }: Extract<Command, { type: 'intercept-dns' }>): CommandResult | undefined {
    const { dnsInterception } = this.#reach;
    if (dnsInterception === undefined) {
      const detail =
        'this kernel has no nf_tables with connection tracking: install kmod-nft-nat and kmod-nf-conntrack-netlink';
      const failure = { why: 'refused', detail } as const;
      return { type: 'dns-intercepted', failure: wanted.type === 'off' ? undefined : failure };
    }
    void dnsInterception
      .apply(wanted)
      .then((failure) => this.#onInput({ type: 'dns-intercepted', failure }));
    return undefined;
  }

  #readNames(): CommandResult {
    const { systemNames } = this.#reach;
    const read = (): CommandResult => ({ type: 'system-names', names: systemNames.read() });
    // First: what changes between the two would be missed.
    this.#endMonitors.push(systemNames.monitor(() => this.#onInput(read())));
    return read();
  }

  #applyRuleset({ wanted }: Extract<Command, { type: 'apply-ruleset' }>): CommandResult {
    const { ruleset } = this.#reach;
    if (ruleset === undefined) {
      const message = 'this kernel has no nf_tables: install kmod-nft-nat';
      const isWanted = wanted.some(({ chains }) => chains.length > 0);
      const failures = isWanted ? [{ object: 'table inet culvert', code: 'ENOENT', message }] : [];
      return { type: 'ruleset-applied', failures };
    }
    if (!this.#isRulesetMonitored) {
      this.#isRulesetMonitored = true;
      this.#endMonitors.push(ruleset.monitor(() => this.#onInput({ type: 'ruleset-changed' })));
    }
    this.#tables = wanted;
    return { type: 'ruleset-applied', failures: ruleset.apply(wanted).failures };
  }
}
