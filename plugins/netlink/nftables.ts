import { NETLINK_NETFILTER } from '../../core/netlink/constants.ts';
import { MessageWriter } from '../../core/netlink/message-writer.ts';
import { decodeChain, writeChainsQuery, type Chain } from '../../core/netlink/nftables/chain.ts';
import {
  assembleElements,
  decodeElements,
  writeElementsQuery,
  type SetElement,
} from '../../core/netlink/nftables/element.ts';
import { decodeGeneration, writeGenerationQuery } from '../../core/netlink/nftables/generation.ts';
import {
  decodeObject,
  writeObjectsQuery,
  type NamedObject,
} from '../../core/netlink/nftables/object.ts';
import { decodeRule, writeRulesQuery, type Rule } from '../../core/netlink/nftables/rule.ts';
import {
  encodeRulesetChanges,
  joinBatch,
  refusedChange,
} from '../../core/netlink/nftables/ruleset-batch.ts';
import type { ObservedTable, RulesetChange } from '../../core/netlink/nftables/ruleset-plan.ts';
import { decodeSet, writeSetsQuery, type NftSet } from '../../core/netlink/nftables/set.ts';
import {
  decodeTable,
  writeTableQuery,
  type Table,
  type TableKey,
} from '../../core/netlink/nftables/table.ts';
import type { Native } from '../../core/plugin/native.ts';
import type { CommitResult, RulesetKernel } from './apply-ruleset.ts';
import { ownRefusal, type Answer, type Refusal } from './refusal.ts';
import { RequestSocket } from './request-socket.ts';

/**
 * Reads and changes the tables of this network namespace, on one socket: tables with the owner flag live
 * as long as it does. Reading needs CAP_NET_ADMIN too.
 */
export class Nftables implements RulesetKernel {
  readonly #socket: RequestSocket;
  readonly #writer = new MessageWriter();

  static open(native: Native): Answer<Nftables> {
    const socket = RequestSocket.open(native, NETLINK_NETFILTER);
    if (!socket.ok) return socket;
    socket.value.enlarge(LARGEST_BATCH);
    return { ok: true, value: new Nftables(socket.value) };
  }

  constructor(socket: RequestSocket) {
    this.#socket = socket;
  }

  get stats(): Readonly<RequestSocket['stats']> {
    return this.#socket.stats;
  }

  generation(): Answer<number> {
    writeGenerationQuery(this.#writer);
    let id: number | undefined;
    const refusal = this.#socket.request(this.#writer.take(), (message) => {
      id = decodeGeneration(message)?.id;
    });
    if (refusal !== undefined) return { ok: false, refusal };
    return id === undefined ? NO_ANSWER : { ok: true, value: id };
  }

  /** `undefined` where there is no such table. */
  readTable(key: TableKey): Answer<Table | undefined> {
    writeTableQuery(this.#writer, key);
    let table: Table | undefined;
    const refusal = this.#socket.request(this.#writer.take(), (message) => {
      table = decodeTable(message);
    });
    if (refusal?.code === 'ENOENT') return { ok: true, value: undefined };
    if (refusal !== undefined) return { ok: false, refusal };
    return table === undefined ? NO_ANSWER : { ok: true, value: table };
  }

  readChains(key: TableKey): Answer<readonly Chain[]> {
    writeChainsQuery(this.#writer, key);
    return this.#socket.dump(this.#writer.take(), decodeChain, ({ table }) => isSame(table, key));
  }

  /** In order within each chain. */
  readRules(key: TableKey): Answer<readonly Rule[]> {
    writeRulesQuery(this.#writer, key);
    return this.#socket.dump(this.#writer.take(), decodeRule, ({ table }) => isSame(table, key));
  }

  readSets(key: TableKey): Answer<readonly NftSet[]> {
    writeSetsQuery(this.#writer, key);
    return this.#socket.dump(this.#writer.take(), decodeSet, ({ table }) => isSame(table, key));
  }

  readElements(
    table: TableKey,
    { name, shape }: Pick<NftSet, 'name' | 'shape'>,
  ): Answer<readonly SetElement[]> {
    writeElementsQuery(this.#writer, table, name);
    const lists = this.#socket.dump(this.#writer.take(), decodeElements);
    if (!lists.ok) return lists;
    const raw = lists.value.flatMap(({ elements }) => elements);
    return { ok: true, value: assembleElements(raw, shape) };
  }

  /** Counters and timeouts; other kinds are left out. */
  readObjects(key: TableKey): Answer<readonly NamedObject[]> {
    writeObjectsQuery(this.#writer, key);
    return this.#socket.dump(this.#writer.take(), decodeObject, ({ table }) => isSame(table, key));
  }

  observe(key: TableKey): Answer<ObservedTable | undefined> {
    const table = this.readTable(key);
    if (!table.ok || table.value === undefined) return table.ok ? ABSENT : table;
    const objects = this.readObjects(key);
    if (!objects.ok) return objects;
    const chains = this.readChains(key);
    if (!chains.ok) return chains;
    const rules = this.readRules(key);
    if (!rules.ok) return rules;
    const sets = this.readSets(key);
    if (!sets.ok) return sets;
    const value: ObservedTable = {
      isDormant: table.value.isDormant,
      isOwned: table.value.owner !== undefined,
      objects: objects.value,
      sets: sets.value.map(({ name, shape }) => ({ name, shape, elements: undefined })),
      chains: chains.value.map(({ name, base }) => ({
        name,
        base,
        fingerprints: rules.value
          .filter(({ chain }) => chain === name)
          .map(({ fingerprint }) => fingerprint),
      })),
    };
    return { ok: true, value };
  }

  commit(changes: readonly RulesetChange[], generation: number): CommitResult {
    const requests = encodeRulesetChanges(changes, this.#writer);
    // The opening message is answered too, when the transaction fails as a whole.
    const { refusals, lost } = this.#socket.exchange(requests.length + OPENING, (first) =>
      joinBatch(requests, first, generation, this.#writer),
    );
    const [whole, ...single] = refusals;
    if (whole !== undefined) return this.#refusedWhole(whole, generation);
    const refused = single.flatMap((refusal, i) => {
      const [change, request] = [changes[i], requests[i]];
      if (refusal === undefined || change === undefined || request === undefined) return [];
      return [{ change: refusedChange(change, request, refusal.attributeOffset), refusal }];
    });
    if (refused.length > 0) return { type: 'refused', refused };
    return lost === undefined ? { type: 'committed' } : { type: 'failed', refusal: lost };
  }

  close(): void {
    this.#socket.close();
  }

  /** ERESTART says that the generation is another one, but its number depends on the CPU. */
  #refusedWhole(refusal: Refusal, generation: number): CommitResult {
    const now = this.generation();
    const isOutdated = now.ok && now.value !== generation;
    return isOutdated ? { type: 'outdated' } : { type: 'failed', refusal };
  }
}

/** What the kernel queues of one transaction: about 150,000 elements. */
const LARGEST_BATCH = 8 * 1024 * 1024;

/** The opening message has a sequence of its own; the closing one gets no answer. */
const OPENING = 1;

const ABSENT: Answer<undefined> = { ok: true, value: undefined };
const NO_ANSWER: Answer<never> = {
  ok: false,
  refusal: ownRefusal('EBADMSG', 'the kernel answered without an object'),
};

function isSame(a: TableKey, b: TableKey): boolean {
  return a.family === b.family && a.name === b.name;
}
