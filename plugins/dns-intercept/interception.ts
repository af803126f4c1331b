import type {
  DnsInterception,
  InterceptionFailure,
  WantedInterception,
} from '../../core/plugin/dns-interception.ts';
import { dnsmasqText } from '../../core/dns/dnsmasq.ts';
import { socketAddressIp, socketAddressPort } from '../../core/net/socket-address.ts';
import { unreachable } from '../../core/sansio/outcome.ts';
import type { Dnsmasq } from './dnsmasq.ts';
import { isAnswering } from './probe.ts';
import type { Redirection } from './redirection.ts';

/** One of the two ways, or none. What the other way left, in this run or an earlier one, is taken back. */
export class Interception implements DnsInterception {
  readonly #redirection: Redirection;
  readonly #dnsmasq: Dnsmasq;
  #wanted: WantedInterception = { type: 'off' };
  #work: Promise<InterceptionFailure | undefined> = Promise.resolve(undefined);

  constructor(redirection: Redirection, dnsmasq: Dnsmasq) {
    this.#redirection = redirection;
    this.#dnsmasq = dnsmasq;
  }

  apply(wanted: WantedInterception): Promise<InterceptionFailure | undefined> {
    this.#wanted = wanted;
    // One call after the other, each for what is wanted by then.
    this.#work = this.#work.then(() => this.#apply(this.#wanted));
    return this.#work;
  }

  async stop(): Promise<void> {
    await this.apply({ type: 'off' });
  }

  async #apply(wanted: WantedInterception): Promise<InterceptionFailure | undefined> {
    switch (wanted.type) {
      case 'off':
        this.#redirection.end();
        return this.#dnsmasq.tell('');
      case 'dnsmasq': {
        const { server } = wanted;
        // What listens for dnsmasq does not listen on the LAN any more.
        this.#redirection.end();
        const text = dnsmasqText(wanted.zones, server);
        if (
          text !== '' &&
          !(await isAnswering(socketAddressIp(server), socketAddressPort(server)))
        ) {
          const detail = `nobody answers at ${socketAddressPort(server)} of this machine`;
          return { why: 'no-answer', detail };
        }
        return this.#dnsmasq.tell(text);
      }
      case 'redirect': {
        const failure = await this.#redirection.begin(wanted);
        const leftover = await this.#dnsmasq.tell('');
        return failure ?? leftover;
      }
      default:
        return unreachable(wanted);
    }
  }
}
