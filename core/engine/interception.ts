import type { Configuration } from '../config/configuration.ts';
import type { ResourceConfiguration } from '../config/resource-configuration.ts';
import { zonesOf } from '../dns/dnsmasq.ts';
import { SITE_DNS_PORT } from '../dns/numbers.ts';
import { reverseZones } from '../dns/reverse-name.ts';
import { APPLICATION_DNS } from '../dns/stub-resolver.ts';
import type { IpAddress } from '../net/ip-address.ts';
import { socketAddress } from '../net/socket-address.ts';
import type { InterceptionFailure, WantedInterception } from '../plugin/dns-interception.ts';
import type { DnsListenFailure, WantedDnsListener } from '../plugin/dns-listener.ts';
import type { Deadline } from '../sansio/agent.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';
import type { Command } from './command.ts';
import type { Event } from './event.ts';

/** An address may not be ready yet: an IPv6 one is tentative for a second or two (RFC 4862 §5.4). */
const FIRST_RETRY: Millis = 2_000;
const LATER_RETRY: Millis = 30_000;

export type InterceptionState =
  | { readonly type: 'off' }
  | { readonly type: 'starting' }
  | { readonly type: 'intercepting' }
  | { readonly type: 'failed'; readonly why: string; readonly detail: string };

/** What is to be answered: the LAN's questions about names that we use, and those of peers. */
interface Wanted {
  readonly configuration: Configuration;
  /** DNS resources that peers serve. */
  readonly used: readonly ResourceConfiguration[];
  /** Whether peers ask for names in our site. */
  readonly servesNames: boolean;
}

/**
 * Where queries are taken, and how those of the LAN come there. Listening comes first, then interception:
 * also where an address could not be opened, as the interception finds out itself which of them answer.
 */
export class Interception {
  readonly #commands: Command[] = [];
  readonly #events: Event[] = [];
  #wanted: Wanted | undefined;
  #state: InterceptionState = { type: 'off' };
  #listenFailure: DnsListenFailure | undefined;
  #isListening = false;
  /** What an earlier run that was killed has changed for the LAN. */
  #mayHaveLeftovers = true;
  #retryAt: Instant | undefined;
  /** Since all went well: what goes away with the first is not told. */
  #retries = 0;
  readonly #told = new Set<Event['type']>();

  configure(wanted: Wanted): void {
    this.#wanted = wanted;
  }

  /** Our link is as configured, or addresses of this machine changed: listeners follow them. */
  listen(): void {
    if (this.#wanted === undefined) return;
    const { configuration, servesNames } = this.#wanted;
    const { dns, site, interface: own } = configuration;
    const tunnel = servesNames ? own.addresses.map(({ address }) => address) : [];
    const addresses = tunnel.map((address) => socketAddress(address, SITE_DNS_PORT));
    const isOn = this.#isOn();
    if (isOn && this.#state.type === 'off') this.#state = { type: 'starting' };
    if (isOn && dns.mode === 'dnsmasq') addresses.push(socketAddress(LOOPBACK, dns.listenPort));
    if (!isOn && (this.#state.type !== 'off' || this.#mayHaveLeftovers)) {
      this.#state = { type: 'off' };
      this.#commands.push({ type: 'intercept-dns', wanted: { type: 'off' } });
    }
    this.#mayHaveLeftovers = false;
    const interfaces = isOn && dns.mode === 'redirect' ? site.lans : [];
    const listener: WantedDnsListener = { port: dns.listenPort, interfaces, addresses };
    const isWanted = interfaces.length + addresses.length > 0;
    if (!isWanted && !this.#isListening) return;
    this.#isListening = isWanted;
    this.#commands.push({ type: 'listen-dns', wanted: listener });
  }

  handleListening(failures: readonly DnsListenFailure[], now: Instant): void {
    const [failure] = failures;
    this.#listenFailure = failure;
    if (failure !== undefined) this.#fail({ type: 'dns-not-listening', ...failure }, now);
    if (this.#isOn()) this.#commands.push({ type: 'intercept-dns', wanted: this.#interception() });
    else if (failure === undefined) this.#succeed();
  }

  handleIntercepted(failure: InterceptionFailure | undefined, now: Instant): void {
    if (this.#wanted === undefined || !this.#isOn()) return;
    const { type } = this.#state;
    const { mode } = this.#wanted.configuration.dns;
    if (failure !== undefined) {
      this.#state = { type: 'failed', ...failure };
      return this.#fail({ type: 'dns-not-intercepted', mode, ...failure }, now);
    }
    this.#state = { type: 'intercepting' };
    if (this.#listenFailure === undefined) this.#succeed();
    if (type !== 'intercepting') this.#events.push({ type: 'dns-intercepting', mode });
  }

  handleTimeout(now: Instant): void {
    if (this.#retryAt === undefined || this.#retryAt > now) return;
    this.#retryAt = undefined;
    this.#retries++;
    this.listen();
  }

  pollCommand(): Command | undefined {
    return this.#commands.shift();
  }

  pollEvent(): Event | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    if (this.#retryAt === undefined) return undefined;
    return { at: this.#retryAt, reason: 'intercept DNS again' };
  }

  get state(): InterceptionState {
    const failure = this.#listenFailure;
    if (failure === undefined || this.#state.type === 'intercepting') return this.#state;
    return { type: 'failed', why: failure.why, detail: failure.address };
  }

  #isOn(): boolean {
    if (this.#wanted === undefined) return false;
    const { configuration, used } = this.#wanted;
    return configuration.dns.mode !== 'off' && used.length > 0;
  }

  #fail(event: Event, now: Instant): void {
    this.#retryAt ??= after(now, this.#retries === 0 ? FIRST_RETRY : LATER_RETRY);
    if (this.#retries === 0 || this.#told.has(event.type)) return;
    this.#told.add(event.type);
    this.#events.push(event);
  }

  #succeed(): void {
    this.#retryAt = undefined;
    this.#retries = 0;
    this.#told.clear();
  }

  #interception(): WantedInterception {
    if (this.#wanted === undefined) return { type: 'off' };
    const { configuration, used } = this.#wanted;
    const { dns, site } = configuration;
    if (dns.mode === 'redirect') {
      return { type: 'redirect', interfaces: site.lans, port: dns.listenPort };
    }
    const patterns = used.flatMap((it) => (it.type === 'dns' ? it.patterns : []));
    // Of its own accord dnsmasq would ask the provider who a proxy is, and browsers would go around it.
    const { ipv4, ipv6 } = dns.proxies;
    const reverse = [...reverseZones(ipv4), ...reverseZones(ipv6)];
    const zones = [...zonesOf(patterns), ...reverse, APPLICATION_DNS];
    return { type: 'dnsmasq', zones, server: socketAddress(LOOPBACK, dns.listenPort) };
  }
}

const LOOPBACK = '127.0.0.1' as IpAddress;
