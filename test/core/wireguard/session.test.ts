import t from 'tap';
import * as layout from '../../../core/fastpath/layout.ts';
import { parseIpPrefix, type IpPrefix } from '../../../core/net/ip-prefix.ts';
import type { IpAddress } from '../../../core/net/ip-address.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { AllowedIps } from '../../../core/wireguard/allowed-ips.ts';
import { MOST_PEERS, SESSION_SLOTS } from '../../../core/wireguard/constants.ts';
import { PeerDeadlines } from '../../../core/wireguard/peer-deadlines.ts';
import { ReplayWindow } from './replay-window.ts';
import { peerOfIndex, SessionRing, type Role } from '../../../core/wireguard/session.ts';
import { SeededRandom } from './network.ts';

const WINDOW = 8128n;
const REJECT_AFTER_MESSAGES = 2n ** 64n - 2n ** 13n - 1n;

await t.test(
  'the replay window accepts each counter once, as far back as the window',
  async (t) => {
    const last = WINDOW + 1n;
    // In the order of the kernel's selftest/counter.c.
    const steps: readonly (readonly [counter: bigint, accepted: boolean])[] = [
      [0n, true],
      [1n, true],
      [1n, false],
      [9n, true],
      [8n, true],
      [7n, true],
      [7n, false],
      [last, true],
      [last - 1n, true],
      [last - 1n, false],
      [last - 2n, true],
      [2n, true],
      [2n, false],
      [last + 16n, true],
      [3n, false],
      [last + 16n, false],
      [last * 4n, true],
      [last * 4n - (last - 1n), true],
      [10n, false],
      [last * 4n - last, false],
      [last * 4n - (last + 1n), false],
      [last * 4n - (last - 2n), true],
      [last * 4n + 1n - last, false],
      [0n, false],
      [REJECT_AFTER_MESSAGES, false],
      [REJECT_AFTER_MESSAGES - 1n, true],
      [REJECT_AFTER_MESSAGES, false],
      [REJECT_AFTER_MESSAGES - 1n, false],
      [REJECT_AFTER_MESSAGES - 2n, true],
      [REJECT_AFTER_MESSAGES + 1n, false],
      [REJECT_AFTER_MESSAGES + 2n, false],
      [REJECT_AFTER_MESSAGES - 2n, false],
      [REJECT_AFTER_MESSAGES - 3n, true],
      [0n, false],
      [-1n, false],
    ];
    const window = new ReplayWindow();
    for (const [i, [counter, accepted]] of steps.entries()) {
      t.equal(window.accept(counter), accepted, `step ${i + 1}`);
    }
  },
);

await t.test('counters in any order pass the replay window once', async (t) => {
  const runs: readonly (readonly [first: bigint, last: bigint, leading: readonly bigint[]])[] = [
    [1n, WINDOW, []],
    [0n, WINDOW, []],
    [1n, WINDOW, [0n]],
    [2n, WINDOW + 1n, [1n]],
    [0n, WINDOW + 1n, [WINDOW + 1n]],
  ];
  for (const [first, last, leading] of runs) {
    const window = new ReplayWindow();
    for (const counter of leading) window.accept(counter);
    let accepted = 0;
    for (let counter = last; counter >= first; counter--)
      accepted += Number(window.accept(counter));
    const repeated = leading.filter((counter) => counter >= first && counter <= last).length;
    const tooOld = leading.includes(WINDOW + 1n) ? 1 : 0;
    t.equal(accepted, Number(last - first) + 1 - repeated - tooOld, `${last} down to ${first}`);
  }
});

await t.test('the replay window agrees with a list of everything accepted', async (t) => {
  for (let seed = 0; seed < 40; seed++) {
    const random = new SeededRandom(seed);
    const window = new ReplayWindow();
    const seen = new Set<bigint>();
    let greatest = 0n;
    for (let i = 0; i < 600; i++) {
      const spread = [3, 100, 9000, 70_000][random.below(4)] ?? 1;
      let counter = greatest + BigInt(random.below(spread) - Math.floor(spread / 2));
      if (counter < 0n) counter = 0n;
      const expected = !seen.has(counter) && counter + WINDOW >= greatest;
      if (window.accept(counter) !== expected) {
        t.fail(`seed ${seed}, step ${i}, counter ${counter}, greatest ${greatest}`);
      }
      if (!expected) continue;
      seen.add(counter);
      if (counter > greatest) greatest = counter;
    }
  }
  t.equal(Number(WINDOW), layout.WINDOW_PACKETS, 'the packet path has a window of the same size');
});

await t.test('an index names the peer and its slot, as the packet path has them', async (t) => {
  t.equal(MOST_PEERS, layout.MOST_PEERS);
  t.equal(SESSION_SLOTS, layout.SESSIONS_PER_PEER);
  const ring = new SessionRing(0xabc, 254);
  const indices = [ring.reserve(), ring.reserve(), ring.reserve(), ring.reserve()];
  t.same(indices, [0xabcfe, 0xabcff, 0xabc00, 0xabc01]);
  t.ok(indices.every((index) => peerOfIndex(index) === 0xabc));
  t.equal(peerOfIndex(0xffff_ffff), 0xff_ffff);
});

await t.test(
  'an initiated session is current at once, a responded one when confirmed',
  async (t) => {
    const ring = new SessionRing(1, 0);
    const first = session(ring.reserve(), 'initiator');
    ring.addInitiated(first);
    t.equal(ring.current, first);
    const second = session(ring.indexForResponse(), 'responder');
    ring.addResponded(second);
    t.equal(ring.current, first);
    t.notOk(ring.confirm(first.localIndex));
    t.ok(ring.confirm(second.localIndex));
    t.equal(ring.current, second);
    t.notOk(ring.confirm(second.localIndex));
  },
);

await t.test('a session that we initiated is not displaced by an unconfirmed one', async (t) => {
  const ring = new SessionRing(1, 0);
  const theirs = session(ring.indexForResponse(), 'responder');
  ring.addResponded(theirs);
  const ours = session(ring.reserve(), 'initiator');
  ring.addInitiated(ours);
  t.notOk(ring.confirm(theirs.localIndex));
  t.equal(ring.current, ours);
});

await t.test('no new session takes the slot of one in use', async (t) => {
  for (let seed = 0; seed < 300; seed++) {
    const random = new SeededRandom(seed);
    const ring = new SessionRing(5, random.below(256));
    let reserved: number | undefined;
    let next: number | undefined;
    for (let step = 0; step < 60; step++) {
      const current = ring.current?.localIndex;
      const action = random.below(4);
      if (action === 0) {
        reserved = ring.reserve();
        if ([current, next].some((used) => isSameSlot(used, reserved))) t.fail(`seed ${seed}`);
      } else if (action === 1 && reserved !== undefined) {
        ring.addInitiated(session(reserved, 'initiator'));
        reserved = next = undefined;
      } else if (action === 2) {
        const index = ring.indexForResponse();
        if ([current, reserved].some((used) => isSameSlot(used, index))) t.fail(`seed ${seed}`);
        ring.addResponded(session(index, 'responder'));
        next = index;
      } else if (next !== undefined) {
        if (!ring.confirm(next)) t.fail(`seed ${seed}: not confirmed`);
        next = undefined;
      }
    }
  }
});

await t.test('sessions expire 180 s after their handshake', async (t) => {
  const ring = new SessionRing(1, 0);
  t.equal(ring.nextExpiry(), undefined);
  ring.addInitiated(session(ring.reserve(), 'initiator', 1000));
  ring.addInitiated(session(ring.reserve(), 'initiator', 121_000));
  t.equal(ring.nextExpiry(), 181_000);
  t.same(ring.takeExpired(instantAt(180_999)), []);
  t.equal(ring.takeExpired(instantAt(181_000)).length, 1);
  t.not(ring.current, undefined);
  t.equal(ring.takeExpired(instantAt(301_000)).length, 1);
  t.equal(ring.current, undefined);
});

await t.test('allowed IPs: the longest prefix wins, and each has one owner', async (t) => {
  const allowed = new AllowedIps();
  allowed.insert(prefix('10.0.0.0/8'), 1);
  allowed.insert(prefix('10.1.0.0/16'), 2);
  allowed.insert(prefix('fd00::/8'), 1);
  t.equal(allowed.lookup('10.1.2.3' as IpAddress), 2);
  t.equal(allowed.lookup('10.2.2.3' as IpAddress), 1);
  t.equal(allowed.lookup('11.0.0.1' as IpAddress), undefined);
  t.equal(allowed.lookupBytes(Uint8Array.of(9, 10, 1, 0, 1), 1, 4), 2);

  allowed.insert(prefix('10.1.0.0/16'), 3);
  t.equal(allowed.lookup('10.1.2.3' as IpAddress), 3);
  t.same(allowed.prefixesOf(2), []);
  allowed.remove(prefix('10.1.0.0/16'), 2);
  t.equal(allowed.lookup('10.1.2.3' as IpAddress), 3, 'of another peer');
  allowed.remove(prefix('10.1.0.0/16'), 3);
  t.equal(allowed.lookup('10.1.2.3' as IpAddress), 1);
  allowed.removePeer(1);
  t.equal(allowed.lookup('fd00::1' as IpAddress), undefined);
  allowed.insert(prefix('0.0.0.0/0'), 4);
  allowed.clear();
  t.equal(allowed.lookup('10.1.2.3' as IpAddress), undefined);
});

await t.test('the earliest of many deadlines is known after every change', async (t) => {
  for (let seed = 0; seed < 30; seed++) {
    const random = new SeededRandom(seed);
    const deadlines = new PeerDeadlines();
    const expected = new Map<number, number>();
    for (let step = 0; step < 400; step++) {
      const peer = random.below(50);
      const at = random.below(30);
      if (random.below(4) === 0) {
        deadlines.set(peer, undefined);
        expected.delete(peer);
      } else {
        deadlines.set(peer, { at: instantAt(at), reason: `${peer}` });
        expected.set(peer, at);
      }
      const earliest = Math.min(...expected.values());
      const ties = [...expected].filter(([, at]) => at === earliest).map(([peer]) => peer);
      const first = deadlines.first();
      const isRight =
        deadlines.size === expected.size &&
        (first?.at ?? Infinity) === earliest &&
        (first === undefined || first.reason === `${Math.min(...ties)}`) &&
        deadlines.duePeer(instantAt(earliest - 1)) === undefined;
      if (!isRight) t.fail(`seed ${seed}, step ${step}`);
    }
  }
});

function session(localIndex: number, role: Role, createdAt = 0) {
  return { localIndex, remoteIndex: 0, role, createdAt: instantAt(createdAt) };
}

function isSameSlot(a: number | undefined, b: number | undefined): boolean {
  return a !== undefined && b !== undefined && a % 4 === b % 4;
}

function prefix(text: string): IpPrefix {
  const parsed = parseIpPrefix(text);
  if (!parsed.ok) throw new Error(parsed.why);
  return parsed.value;
}
