import type { DnsTransmit } from '../../../core/dns/forwarder.ts';
import { parseHosts } from '../../../core/dns/hosts.ts';
import { Resolver } from '../../../core/dns/resolver.ts';
import { SiteLookup, type SiteLookupEvent } from '../../../core/dns/site-lookup.ts';
import { UpstreamRules } from '../../../core/dns/upstream-rules.ts';
import { after, instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { decode, nameOf, pool, resources, type TestResource } from './messages.ts';

/** What the server of the site says; `undefined` for nothing. */
export type SiteServer = (
  query: Uint8Array,
  transport: DnsTransmit['transport'],
) => Uint8Array | undefined;

export interface Resolved {
  readonly at: number;
  readonly name: string;
  /** The addresses, or why there are none. */
  readonly result: readonly string[] | string;
}

/** A gateway that looks names up with a resolver and forwarder as the engine has them, on a virtual clock. */
export class SiteScene {
  readonly lookup = new SiteLookup();
  readonly resolver: Resolver<TestResource>;
  readonly resolved: Resolved[] = [];
  /** What the LAN was answered, by client. */
  readonly responses: { readonly source: string; readonly bytes: Uint8Array }[] = [];
  /** `A www.example udp` for each question that left. */
  readonly asked: string[] = [];
  server: SiteServer;
  latency = 20;
  now: Instant = instantAt(0);
  readonly #inbox: { readonly at: number; readonly deliver: () => void }[] = [];

  constructor(server: SiteServer, seed = 1) {
    this.server = server;
    this.resolver = new Resolver<TestResource>(
      {
        resources: resources({ '*.corp.example': 'dual' }),
        rules: new UpstreamRules([], 'system'),
        siteRules: new UpstreamRules([], 'system'),
      },
      { pool: pool(), random: new SeededRandom(seed) },
      this.now,
    );
    const upstreams = [{ id: '192.0.2.1:53', protocol: 'plain' as const }];
    this.resolver.setGroup('system', { upstreams, isCached: true });
  }

  setHosts(text: string): void {
    this.lookup.setHosts(parseHosts([text]));
  }

  lookUp(...names: readonly string[]): void {
    for (const name of names) this.lookup.lookUp(nameOf(name), this.now);
    this.#drain();
  }

  /** Looks one name up and returns what comes out, after 11 s at most. */
  resolve(name: string): Resolved['result'] | undefined {
    const before = this.resolved.length;
    this.lookUp(name);
    this.run(11_000);
    return this.resolved[before]?.result;
  }

  run(ms: number): void {
    const end = this.now + ms;
    for (let step = 0; step < 100_000; step++) {
      const [next] = this.#inbox;
      const due = Math.min(
        this.resolver.pollTimeout()?.at ?? Infinity,
        this.lookup.pollTimeout()?.at ?? Infinity,
      );
      const at = Math.min(next?.at ?? Infinity, due);
      if (at > end) {
        this.now = instantAt(end);
        return;
      }
      this.now = instantAt(Math.max(at, this.now));
      if (next !== undefined && next.at <= this.now) {
        this.#inbox.shift();
        next.deliver();
      } else {
        this.resolver.handleTimeout(this.now);
        this.lookup.handleTimeout(this.now);
      }
      this.#drain();
    }
    throw new Error('it does not end');
  }

  #drain(): void {
    for (let worked = true; worked;) {
      worked = false;
      for (let one; (one = this.lookup.pollQuestion()) !== undefined; worked = true) {
        this.resolver.ask(one.client, one.bytes, this.now);
      }
      for (let event; (event = this.resolver.pollEvent()) !== undefined; worked = true) {
        if (event.type !== 'response') continue;
        const { client, bytes } = event;
        if (this.lookup.isOurs(client)) this.lookup.handleAnswer(client, bytes, this.now);
        else this.responses.push({ source: client.source, bytes });
      }
      for (let event; (event = this.lookup.pollEvent()) !== undefined; worked = true) {
        this.#onResolved(event);
      }
    }
    for (let one; (one = this.resolver.pollTransmit()) !== undefined;) this.#onTransmit(one);
  }

  #onResolved({ name, outcome }: SiteLookupEvent): void {
    this.resolved.push({ at: this.now, name, result: outcome.ok ? outcome.value : outcome.why });
  }

  #onTransmit({ bytes, transport, upstream, port }: DnsTransmit): void {
    const [question] = decode(bytes).questions ?? [];
    // Probes of the forwarder are no questions of a lookup.
    if (question?.type !== 'NS')
      this.asked.push(`${question?.type} ${question?.name} ${transport}`);
    const said = this.server(bytes, transport);
    if (said === undefined) return;
    const at = after(this.now, this.latency);
    const deliver = () =>
      this.resolver.handleAnswer({ upstream: upstream.id, transport, port, bytes: said }, this.now);
    this.#inbox.push({ at, deliver });
  }
}
