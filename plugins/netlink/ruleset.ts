import { NETLINK_NETFILTER } from '../../core/netlink/constants.ts';
import { readMessages } from '../../core/netlink/message.ts';
import { NetfilterGroup } from '../../core/netlink/nfnetlink.ts';
import { decodeGeneration } from '../../core/netlink/nftables/generation.ts';
import { native, type Native } from '../../core/plugin/native.ts';
import type { PluginDefinition, PluginHost } from '../../core/plugin/plugin.ts';
import { ruleset, type Ruleset } from '../../core/plugin/ruleset.ts';
import { RulesetState } from './apply-ruleset.ts';
import { MulticastSocket } from './multicast-socket.ts';
import { Nftables } from './nftables.ts';
import { Subscribers } from './subscribers.ts';

export interface RulesetOptions {
  /** Notifications that the kernel may hold for us, in bytes of its memory; 1 MB by default. */
  readonly monitorBuffer?: number;
}

/** Returns the plugin that keeps tables of nf_tables. */
export function createRuleset(options: RulesetOptions = {}): PluginDefinition<Ruleset> {
  return {
    name: 'ruleset',
    provides: ruleset,
    needs: [native],
    create(host) {
      const calls = host.use(native);
      const opened = Nftables.open(calls);
      if (!opened.ok) return { skip: `this kernel has no netfilter: ${opened.refusal.message}` };
      const generation = opened.value.generation();
      if (!generation.ok && generation.refusal.code !== 'EPERM') {
        opened.value.close();
        return { skip: `this kernel has no nf_tables: ${generation.refusal.message}` };
      }
      const api = new KernelRuleset(opened.value, calls, host, options.monitorBuffer);
      return {
        api,
        stop() {
          api.close();
          opened.value.close();
        },
      };
    },
  };
}

/**
 * Foreign changes show in the generation. Its notifications say no more than when to compare it, so what
 * the kernel had to drop costs nothing.
 */
class KernelRuleset implements Ruleset {
  readonly #native: Native;
  readonly #host: PluginHost;
  readonly #monitorBuffer: number;
  readonly #state: RulesetState;
  readonly #subscribers: Subscribers;
  #socket: MulticastSocket | undefined;

  constructor(
    nftables: Nftables,
    calls: Native,
    host: PluginHost,
    monitorBuffer: number = MONITOR_BUFFER,
  ) {
    this.#native = calls;
    this.#host = host;
    this.#monitorBuffer = monitorBuffer;
    this.#subscribers = new Subscribers(host.clock);
    this.#state = new RulesetState(nftables, () => this.#subscribers.tell());
  }

  apply(wanted: Parameters<Ruleset['apply']>[0]): ReturnType<Ruleset['apply']> {
    return this.#state.apply(wanted);
  }

  clear(tables: Parameters<Ruleset['clear']>[0]): void {
    this.#state.clear(tables);
  }

  monitor(onForeignChange: () => void): () => void {
    const unsubscribe = this.#subscribers.add(onForeignChange);
    if (this.#socket === undefined) {
      this.#socket = this.#open();
      // From here on another number is a change.
      this.#state.compare();
    }
    return () => {
      unsubscribe();
      if (this.#subscribers.isEmpty) this.close();
    };
  }

  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }

  #open(): MulticastSocket | undefined {
    const { log } = this.#host;
    const opened = MulticastSocket.open(
      this.#native,
      NETLINK_NETFILTER,
      [NetfilterGroup.nftables],
      this.#monitorBuffer,
      {
        onDatagram: (datagram) => this.#handleDatagram(datagram),
        onOverrun: () => undefined,
        onDrained: () => void this.#state.compare(),
      },
    );
    const refusal = opened.ok ? opened.value.refusal : opened.refusal;
    if (refusal !== undefined) log.warn('changes of tables go unseen', { why: refusal.message });
    return opened.ok ? opened.value : undefined;
  }

  #handleDatagram(datagram: Uint8Array): void {
    for (const message of readMessages(datagram).messages) {
      const generation = decodeGeneration(message);
      if (generation === undefined) continue;
      this.#host.log.debug('tables changed', { by: generation.process ?? 'unknown' });
    }
  }
}

const MONITOR_BUFFER = 1024 * 1024;
