import type { Test } from 'tap';
import type { Tuple } from '../../core/netlink/conntrack/tuple.ts';
import type { Conntrack } from '../../core/plugin/conntrack.ts';
import { ip, prefix } from '../netns/nftables-rules.ts';

/** A kernel that tracks connections, and a view that does not use our codecs. */
export interface ConntrackWorld {
  readonly conntrack: Conntrack;
  /** Makes an entry as traffic would. */
  readonly add: (entry: Entry) => void;
  readonly count: () => number;
  /** Waits until what happened before has been told to monitors. */
  readonly settle: () => Promise<void>;
  readonly close: () => void | Promise<void>;
}

export interface Entry {
  readonly original: Tuple;
  readonly mark?: number;
}

const UDP = 17;
const TCP = 6;

const dns: Tuple = tuple('10.0.0.1', '10.0.0.2', UDP, 1000, 53);
const dnsTcp: Tuple = tuple('10.0.0.1', '10.0.0.2', TCP, 1001, 53);
const web: Tuple = tuple('10.0.0.1', '10.0.0.3', TCP, 1002, 80);
const dns6: Tuple = tuple('fd00::1', 'fd00::2', UDP, 1003, 53);

/** What every implementation of `Conntrack` does. */
export async function conntrackContract(
  t: Test,
  open: () => Promise<ConntrackWorld>,
): Promise<void> {
  const inWorld = async (
    title: string,
    run: (t: Test, world: ConntrackWorld) => void | Promise<void>,
  ) => {
    await t.test(title, async (t) => {
      const world = await open();
      try {
        await run(t, world);
      } finally {
        world.conntrack.removeAll({});
        await world.close();
      }
    });
  };
  const originals = (read: ReturnType<Conntrack['dump']>) =>
    read.ok ? read.value.map(({ original }) => original) : read.why;

  await inWorld('shows the connections that match', (t, { conntrack, add }) => {
    for (const original of [dns, dnsTcp, dns6]) add({ original });
    add({ original: web, mark: 0x105 });
    const found = conntrack.dump({});
    t.equal(found.ok && found.value.length, 4);
    t.strictSame(originals(conntrack.dump({ family: 6 })), [dns6]);
    t.strictSame(originals(conntrack.dump({ mark: { value: 5, mask: 0xff } })), [web]);
    t.strictSame(originals(conntrack.dump({ original: { destinationPort: 80 } })), [web]);
    t.strictSame(
      originals(conntrack.dump({ protocol: UDP, family: 4, original: { destinationPort: 53 } })),
      [dns],
    );
    t.strictSame(originals(conntrack.dump({ original: { destination: prefix('10.0.0.3/32') } })), [
      web,
    ]);
    t.strictSame(originals(conntrack.dump({ reply: { source: prefix('fd00::/64') } })), [dns6]);
    t.strictSame(originals(conntrack.dump({ reply: { sourcePort: 80 } })), [web]);
    t.strictSame(originals(conntrack.dump({ zone: 7 })), []);
  });

  await inWorld('forgets one connection', (t, { conntrack, add, count }) => {
    add({ original: dns });
    add({ original: web });
    t.strictSame(conntrack.remove(dns), { ok: true, value: { removed: 1 } });
    t.equal(count(), 1);
    t.strictSame(conntrack.remove(dns), { ok: true, value: { removed: 0 } });
    t.strictSame(conntrack.remove(web, 3), { ok: true, value: { removed: 0 } }, 'in its own zone');
  });

  await inWorld('forgets all connections to a port', (t, { conntrack, add, count }) => {
    for (const original of [dns, dnsTcp, dns6, web]) add({ original });
    t.strictSame(conntrack.removeAll({ original: { destinationPort: 53 } }), {
      ok: true,
      value: { removed: 3 },
    });
    t.strictSame(originals(conntrack.dump({})), [web]);
    t.equal(count(), 1);
  });

  await inWorld('tells of the connections that match', async (t, world) => {
    const { conntrack, add } = world;
    const told: string[] = [];
    const handler = {
      onEvent: ({ type, connection }: { type: string; connection: { original: Tuple } }) =>
        void told.push(`${type} ${connection.original.destinationPort}`),
      onLost: () => void told.push('lost'),
    };
    const end = conntrack.monitor(handler, { protocol: TCP });
    add({ original: web });
    add({ original: dns });
    await world.settle();
    t.equal(told[0], 'new 80');
    conntrack.remove(web);
    await world.settle();
    t.equal(told.at(-1), 'destroy 80');
    const before = told.length;
    end();
    add({ original: dnsTcp });
    await world.settle();
    t.equal(told.length, before);
  });
}

function tuple(
  source: string,
  destination: string,
  protocol: number,
  sourcePort: number,
  destinationPort: number,
): Tuple {
  return {
    source: ip(source),
    destination: ip(destination),
    protocol,
    sourcePort,
    destinationPort,
  };
}
