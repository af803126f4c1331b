import dnsPacket, { type Answer } from 'dns-packet';
import { placeOf } from '../../core/dns/upstream-url.ts';
import type { DnsClient, DnsTransmit } from '../../core/dns/forwarder.ts';
import type { DnsUpstreams } from '../../core/plugin/dns-upstreams.ts';
import type { DnsListener, DnsQuery, WantedDnsListener } from '../../core/plugin/dns-listener.ts';
import type {
  InterceptionFailure,
  WantedInterception,
} from '../../core/plugin/dns-interception.ts';
import type { Clock } from '../../core/plugin/clock.ts';
import type { WantedRuleset } from '../../core/netlink/nftables/wanted-ruleset.ts';
import { parseSocketAddress, type SocketAddress } from '../../core/net/socket-address.ts';
import { ok } from '../../core/sansio/outcome.ts';
import type { NamesReach } from '../../openwrt/world-names.ts';

export interface Question {
  readonly type: string;
  readonly name: string;
}

/** Answers a question as a server of the site: with records, a failure, or silence. */
export type Zone = (question: Question) => readonly Answer[] | 'servfail' | 'silence';

/** Names and the packet filter of a simulated site: hosts of the LAN ask, a zone in memory answers. */
export class MemoryNames implements NamesReach {
  /** What was asked of the servers of the site, in order. */
  readonly asked: (Question & { readonly upstream: string })[] = [];
  /** What the LAN was answered, by the id of the question. */
  readonly answers = new Map<number, dnsPacket.DecodedPacket>();
  interception: WantedInterception = { type: 'off' };
  interceptionFailure: InterceptionFailure | undefined;
  listening: WantedDnsListener | undefined;
  filter: WantedRuleset = [];
  zone: Zone = () => [];
  /** Takes a question to a server in another site; false for one to a server of this site. */
  askSite: (transmit: DnsTransmit) => boolean = () => false;
  readonly #responses = new Map<string, (bytes: Uint8Array) => void>();
  readonly #clock: Clock;
  #onQuery: (query: DnsQuery) => void = () => undefined;
  #handlers: Parameters<DnsUpstreams['listenTo']>[0] | undefined;
  #nextId = 1;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A host of the LAN asks; returns the id under which `answers` has the answer. */
  ask(type: string, name: string, options: { from?: string; to?: string } = {}): number {
    const id = this.#nextId++;
    const remote = socket(options.from ?? '192.168.1.10:40000');
    const local = socket(options.to ?? '192.168.1.1:53053');
    const bytes = dnsPacket.encode({
      type: 'query',
      id,
      flags: dnsPacket.RECURSION_DESIRED,
      questions: [{ type: type as 'A', name }],
    });
    const client: DnsClient = { source: `${remote} ${id}`, transport: 'udp' };
    this.#onQuery({ client, remote, local, bytes });
    return id;
  }

  /** A query that came through the tunnel. */
  handleQuery(
    query: { readonly remote: string; readonly local: string; readonly bytes: Uint8Array },
    onAnswer: (bytes: Uint8Array) => void,
  ): void {
    const source = `tunnel ${this.#nextId++}`;
    this.#responses.set(source, onAnswer);
    this.#onQuery({
      client: { source, transport: 'udp' },
      remote: socket(query.remote),
      local: socket(query.local),
      bytes: query.bytes,
    });
  }

  /** The answer of a server in another site. */
  handleAnswer(upstream: string, port: number, bytes: Uint8Array): void {
    this.#handlers?.onAnswer({ upstream, transport: 'udp', port, bytes });
  }

  readonly dnsListener: DnsListener = {
    listenTo: (onQuery) => {
      this.#onQuery = onQuery;
    },
    listen: async (wanted) => {
      this.listening = wanted;
      return [];
    },
    respond: (client, bytes) => {
      const respond = this.#responses.get(client.source);
      if (respond !== undefined) return respond(bytes);
      const answer = dnsPacket.decode(Buffer.from(bytes));
      this.answers.set(answer.id ?? 0, answer);
    },
  };

  readonly dnsUpstreams: DnsUpstreams = {
    listenTo: (handlers) => {
      this.#handlers = handlers;
    },
    send: (transmit) => this.#clock.soon(() => this.#serve(transmit)),
  };

  readonly dnsInterception: NonNullable<NamesReach['dnsInterception']> = {
    apply: async (wanted) => {
      this.interception = wanted;
      return this.interceptionFailure;
    },
  };

  readonly systemNames: NamesReach['systemNames'] = {
    read: () => ({
      nameservers: [socket('192.0.2.53:53')],
      providerNameservers: [socket('192.0.2.53:53')],
      hosts: new Map(),
    }),
    monitor: () => () => undefined,
  };

  readonly ruleset: NonNullable<NamesReach['ruleset']> = {
    apply: (wanted) => {
      this.filter = wanted;
      return { ...ok({ changes: 0 }), failures: [] };
    },
    clear: () => undefined,
    monitor: () => () => undefined,
  };

  #serve(transmit: DnsTransmit): void {
    const { upstream, transport, port, bytes } = transmit;
    const query = dnsPacket.decode(Buffer.from(bytes));
    const [question] = query.questions ?? [];
    if (question === undefined || placeOf(upstream.id) === undefined) return;
    const { name, type } = question;
    this.asked.push({ name: name.toLowerCase(), type, upstream: upstream.id });
    if (this.askSite(transmit)) return;
    const found = this.zone({ name: name.toLowerCase(), type });
    if (found === 'silence') return;
    const answer = dnsPacket.encode({
      type: 'response',
      id: query.id ?? 0,
      flags:
        dnsPacket.RECURSION_DESIRED |
        dnsPacket.RECURSION_AVAILABLE |
        (found === 'servfail' ? 2 : 0),
      questions: [question],
      answers: found === 'servfail' ? [] : [...found],
    });
    this.#handlers?.onAnswer({ upstream: upstream.id, transport, port, bytes: answer });
  }
}

function socket(text: string): SocketAddress {
  const parsed = parseSocketAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
