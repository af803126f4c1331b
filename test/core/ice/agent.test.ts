import t from 'tap';
import { encodeAnswer, encodeCheck } from '../../../core/ice/binding.ts';
import type { Candidate } from '../../../core/ice/candidate.ts';
import { ICE_TIMEOUT, type IceRole } from '../../../core/ice/agent.ts';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import { after } from '../../../core/sansio/instant.ts';
import { encodeStun, type StunAttributes } from '../../../core/stun/message.ts';
import { encodeUtf8 } from '../../../core/sansio/utf8.ts';
import {
  at,
  candidate,
  createPair,
  crypto,
  decoded,
  host,
  introduce,
  LEFT,
  LEFT_PAIR,
  Nat,
  Network,
  RIGHT,
  RIGHT_PAIR,
  stream,
  type Peer,
} from './network.ts';

/** REKEY_ATTEMPT_TIME of peers whose path ICE finds. */
const REKEY_ATTEMPT_TIME = 15_000;

await t.test('ICE gives up before the handshake does', async (t) => {
  t.ok(ICE_TIMEOUT < REKEY_ATTEMPT_TIME);
});

/** A check of the right side, which the test sends by hand. */
function rightCheck(
  options: {
    readonly nominates?: boolean;
    readonly role?: IceRole;
    readonly tieBreaker?: Uint8Array;
    readonly local?: typeof LEFT;
    readonly remote?: typeof LEFT;
  } = {},
): Uint8Array {
  return encodeCheck(
    {
      transactionId: new Uint8Array(12).fill(7),
      role: options.role ?? 'controlled',
      tieBreaker: options.tieBreaker ?? new Uint8Array(8),
      priority: 1_862_270_975,
      nominates: options.nominates ?? false,
    },
    { local: options.local ?? RIGHT, remote: options.remote ?? LEFT, crypto },
  );
}

/** A peer alone with its candidates and those of a peer that never answers. */
function alone(
  options: {
    readonly role?: IceRole;
    readonly local?: readonly string[];
    readonly remote?: readonly Candidate[];
  } = {},
): { network: Network; left: Peer } {
  const network = new Network();
  const left = network.addPeer(options.role ?? 'controlling', 'left');
  (options.local ?? ['192.0.2.1:1000']).forEach((address, i) => left.open(address, network.now, i));
  left.agent.setRemoteCandidates(options.remote ?? [], network.now);
  left.settle(network.now);
  return { network, left };
}

await t.test('pairs', async (t) => {
  await t.test('the first check leaves in the call that makes its pair', async (t) => {
    const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
    t.match(left.checks, [{ at: network.now, base: '192.0.2.1:1000', to: '198.51.100.1:2000' }]);
    const late = network.addPeer('controlling', 'left', 3);
    late.agent.setRemoteCandidates([host('198.51.100.1:2000')], network.now);
    late.settle(network.now);
    t.same(late.checks, []);
    late.open('192.0.2.9:1000', network.now);
    t.match(late.checks, [{ at: network.now, base: '192.0.2.9:1000', to: '198.51.100.1:2000' }]);
  });

  await t.test(
    'a check says who we are, our role, and our priority as peer-reflexive',
    async (t) => {
      const { left } = alone({ remote: [host('198.51.100.1:2000')] });
      const [check] = left.checks;
      t.match(check?.message, {
        class: 'request',
        method: 'binding',
        attributes: { username: 'rght:left', priority: 110 * 2 ** 24 + 32_767 * 256 + 255 },
      });
      t.equal(check?.message.attributes.iceControlling?.length, 8);
      t.equal(check?.message.attributes.iceControlled, undefined);
      t.equal(check?.message.attributes.useCandidate, undefined);
      t.ok(check?.message.hasValidIntegrity(encodeUtf8(RIGHT.password), crypto));
    },
  );

  await t.test('IP versions, transports and scopes are never mixed', async (t) => {
    const { network, left } = alone({
      local: ['192.0.2.1:1000', '[2001:db8::1]:1000', '[fe80::1]:1000'],
      remote: [
        host('198.51.100.1:2000'),
        host('[2001:db8::2]:2000'),
        host('[fe80::2]:2000'),
        stream('passive', '198.51.100.1:443'),
      ],
    });
    network.run(200);
    t.same(left.checks.map(({ base, to }) => `${base} ${to}`).sort(), [
      '192.0.2.1:1000 198.51.100.1:2000',
      '[2001:db8::1]:1000 [2001:db8::2]:2000',
      '[fe80::1]:1000 [fe80::2]:2000',
    ]);
  });

  await t.test('only an active stream candidate calls, and only a passive one', async (t) => {
    const { network, left } = alone({ local: [] });
    left.agent.addLocalCandidate(stream('active', '192.0.2.1:9'), 'stream', network.now);
    left.agent.addLocalCandidate(stream('passive', '192.0.2.1:443'), 'stream', network.now);
    left.agent.setRemoteCandidates(
      [stream('active', '198.51.100.1:9'), stream('passive', '198.51.100.1:443')],
      network.now,
    );
    network.run(200);
    t.match(left.checks, [{ base: 'stream', to: '198.51.100.1:443' }]);
    t.equal(left.checks.length, 1);
  });

  await t.test('a check that comes on a stream makes a pair of the passive side', async (t) => {
    const { network, left } = alone({ local: [] });
    left.agent.addLocalCandidate(stream('active', '192.0.2.1:9'), 'stream', network.now);
    left.agent.addLocalCandidate(stream('passive', '192.0.2.1:443'), 'stream', network.now);
    left.receive(rightCheck(), 'stream', at('198.51.100.1:50123'), network.now);
    t.match(left.answers, [{ base: 'stream', to: '198.51.100.1:50123' }]);
    t.match(left.checks, [{ base: 'stream', to: '198.51.100.1:50123' }]);
    answerLast(left, network);
    t.match(left.agent.validPairs(), [
      {
        local: { tcpType: 'passive' },
        remoteCandidate: { type: 'prflx', transport: 'tcp', tcpType: 'active' },
      },
    ]);
  });

  await t.test('a reflexive local candidate makes no pairs', async (t) => {
    const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
    const reflexive = candidate('srflx', '203.0.113.1:40000');
    left.agent.addLocalCandidate(reflexive, '192.0.2.1:1000', network.now);
    network.run(200);
    t.equal(left.checks.length, 1);
  });

  await t.test('pairs are checked by priority, one each 20 ms (RFC 8445 §6.1.2.3)', async (t) => {
    const { network, left } = alone({
      local: ['192.0.2.1:1000', '[2001:db8::1]:1000'],
      remote: [],
    });
    left.agent.setRemoteCandidates(
      [
        candidate('relay', '198.51.100.9:3000'),
        candidate('srflx', '198.51.100.2:2000'),
        host('198.51.100.1:2000'),
        host('[2001:db8::2]:2000'),
      ],
      network.now,
    );
    const start = network.now;
    network.run(100);
    t.same(
      left.checks.map((check) => [check.at - start, check.to]),
      [
        [0, '[2001:db8::2]:2000'],
        [20, '198.51.100.1:2000'],
        [40, '198.51.100.2:2000'],
        [60, '198.51.100.9:3000'],
      ],
    );
  });

  await t.test('there are 100 pairs at most, the best ones', async (t) => {
    const remote = Array.from({ length: 64 }, (_, i) => host(`198.51.100.1:${2000 + i}`, i));
    const { network, left } = alone({ local: ['192.0.2.1:1', '192.0.2.2:1'], remote });
    network.run(5000);
    const checked = new Set(left.checks.map(({ base, to }) => `${base} ${to}`));
    t.equal(checked.size, 100);
    t.ok(checked.has('192.0.2.2:1 198.51.100.1:2000'), 'the best remote is paired with all');
    t.notOk(checked.has('192.0.2.2:1 198.51.100.1:2063'), 'the worst is not');
  });

  await t.test('of a longer list the best 64 candidates are taken', async (t) => {
    const remote = Array.from({ length: 70 }, (_, i) => host(`198.51.100.1:${2000 + i}`, 69 - i));
    const { network, left } = alone({ remote });
    network.run(5000);
    const ports = new Set(left.checks.map(({ to }) => to));
    t.equal(ports.size, 64);
    t.notOk(ports.has(at('198.51.100.1:2000')), 'the lowest priority');
  });
});

await t.test('checks', async (t) => {
  await t.test(
    'an unanswered check is repeated with its id, up to 1.5 s apart, for 10 s',
    async (t) => {
      const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
      const start = network.now;
      network.run(20_000);
      t.same(
        left.checks.map((check) => check.at - start),
        [0, 250, 750, 1750, 3250, 4750, 6250, 7750, 9250],
      );
      const [first] = left.checks;
      for (const check of left.checks) t.same(check.payload, first?.payload);
      t.same(left.events, [{ at: after(start, ICE_TIMEOUT), event: { type: 'failed' } }]);
      t.equal(left.agent.pollTimeout(), undefined, 'and then all is quiet');
    },
  );

  await t.test('each pair is tried for 10 s from when it appeared', async (t) => {
    const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
    network.run(6000);
    const appearedAt = network.now;
    left.agent.setRemoteCandidates(
      [host('198.51.100.1:2000'), host('198.51.100.2:2000')],
      network.now,
    );
    network.run(20_000);
    const second = left.checks.filter(({ to }) => to === '198.51.100.2:2000');
    t.equal(second[0]?.at, appearedAt);
    t.ok((second.at(-1)?.at ?? 0) > appearedAt + 9000);
    t.same(left.events, [{ at: after(appearedAt, ICE_TIMEOUT), event: { type: 'failed' } }]);
  });

  await t.test('without any candidate of the peer the agent fails after 10 s, once', async (t) => {
    const { network, left } = alone();
    const start = network.now;
    network.run(60_000);
    t.same(left.events, [{ at: after(start, ICE_TIMEOUT), event: { type: 'failed' } }]);
    left.agent.recheck(network.now);
    network.run(60_000);
    t.equal(left.events.length, 2, 'and once more after a recheck');
  });

  await t.test('an answered check makes the pair valid on both sides', async (t) => {
    const { network, left, right } = createPair();
    network.run(100);
    t.same(left.valid, ['192.0.2.1:1000 → 198.51.100.1:2000']);
    t.same(right.valid, ['198.51.100.1:2000 → 192.0.2.1:1000']);
    t.match(left.eventsOf('pair-valid'), [{ pair: { ...LEFT_PAIR, rtt: 20 } }]);
    network.run(60_000);
    t.same(left.eventsOf('failed'), []);
    t.equal(left.agent.pollTimeout(), undefined, 'a valid pair asks for no calls');
  });

  await t.test('checks of a failed pair begin again when the peer checks it', async (t) => {
    const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
    network.run(30_000);
    const count = left.checks.length;
    left.receive(rightCheck(), '192.0.2.1:1000', at('198.51.100.1:2000'), network.now);
    t.equal(left.checks.length, count + 1, 'at once');
    const revivedAt = network.now;
    network.run(30_000);
    t.ok((left.checks.at(-1)?.at ?? 0) > revivedAt + 9000, 'and for 10 s');
  });

  await t.test('a triggered check goes before waiting pairs, with a new id', async (t) => {
    const remote = ['1', '2', '3', '4'].map((n, i) => host(`198.51.100.${n}:2000`, i));
    const { network, left } = alone({ remote });
    left.receive(rightCheck(), '192.0.2.1:1000', at('198.51.100.4:2000'), network.now);
    network.run(30);
    t.same(left.checks.map(({ to }) => to).slice(0, 2), ['198.51.100.1:2000', '198.51.100.4:2000']);
    left.receive(rightCheck(), '192.0.2.1:1000', at('198.51.100.1:2000'), network.now);
    network.run(20);
    const [first, again] = left.checks.filter(({ to }) => to === '198.51.100.1:2000');
    t.notSame(first?.message.transactionId, again?.message.transactionId);
  });

  await t.test('two sides whose answers are lost do not chase each other', async (t) => {
    const { network, left, right } = createPair();
    network.link = ({ payload }) => (decoded(payload).class === 'request' ? 1 : undefined);
    network.run(10_000);
    t.ok(left.checks.length < 100, `${left.checks.length} checks in 10 s`);
    t.ok(right.checks.length < 100);
  });

  await t.test('the round trip is smoothed: seven eighths are what was', async (t) => {
    const { network, left } = createPair();
    network.run(100);
    network.link = () => 50;
    left.agent.probe(LEFT_PAIR, network.now);
    network.run(200);
    t.match(left.eventsOf('pair-answered'), [{ pair: { rtt: (7 * 20 + 100) / 8 } }]);
  });

  await t.test('an answer to a repeated check only bounds the round trip', async (t) => {
    const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
    network.run(300);
    answerLast(left, network);
    t.match(left.agent.validPairs(), [{ rtt: 300 }], 'until there is a measurement');
    left.agent.probe(LEFT_PAIR, network.now);
    left.settle(network.now);
    network.run(40);
    answerLast(left, network);
    t.match(left.agent.validPairs(), [{ rtt: 40 }]);
  });

  await t.test('a probe is one check at once, not repeated', async (t) => {
    const { network, left } = createPair();
    network.run(100);
    network.link = () => undefined;
    const count = left.checks.length;
    left.agent.probe(LEFT_PAIR, network.now);
    left.agent.probe(LEFT_PAIR, network.now);
    left.settle(network.now);
    t.equal(left.checks.length, count + 2, 'not paced either');
    network.run(20_000);
    t.equal(left.checks.length, count + 2);
    t.equal(left.agent.validPairs().length, 1, 'what silence means is not decided here');
  });

  await t.test('answers are awaited for 10 s', async (t) => {
    const { network, left } = createPair();
    network.run(100);
    network.link = () => undefined;
    left.agent.probe(LEFT_PAIR, network.now);
    left.settle(network.now);
    const id = left.checks.at(-1)?.message.transactionId ?? new Uint8Array(12);
    t.ok(left.agent.owns(id));
    network.run(9_999);
    t.ok(left.agent.owns(id));
    network.run(1);
    t.notOk(left.agent.owns(id));
    t.notOk(left.agent.owns(new Uint8Array(12)));
  });

  await t.test('after an hour of sleep all is over at once, with one check at most', async (t) => {
    const remote = Array.from({ length: 50 }, (_, i) => host(`198.51.100.1:${2000 + i}`, i));
    const { network, left } = alone({ remote });
    network.run(500);
    const count = left.checks.length;
    const late = after(network.now, 3_600_000);
    left.agent.handleTimeout(late);
    left.settle(late);
    t.ok(left.checks.length <= count + 1);
    t.match(left.events, [{ event: { type: 'failed' } }]);
    left.agent.recheck(late);
    left.settle(late);
    t.ok(left.checks.length <= count + 2, 'a recheck paces them too');
  });
});

/** Answers the last check of `peer` as the right side would. */
function answerLast(
  peer: Peer,
  network: Network,
  answer: Parameters<typeof encodeAnswer>[1] = { class: 'success', from: at('203.0.113.99:1') },
  overrides: {
    readonly from?: SocketAddress;
    readonly base?: string;
    readonly password?: string;
  } = {},
): void {
  const check = peer.checks.at(-1);
  if (check === undefined) throw new Error('nothing to answer');
  const local = { ...RIGHT, password: overrides.password ?? RIGHT.password };
  const payload = encodeAnswer(check.message, answer, { local, remote: LEFT, crypto });
  peer.receive(payload, overrides.base ?? check.base, overrides.from ?? check.to, network.now);
}

await t.test('answers', async (t) => {
  const FROM = at('198.51.100.1:2000');

  await t.test('an authentic check is answered from where it came to, to its source', async (t) => {
    const { network, left } = alone({ local: ['192.0.2.1:1000', '192.0.2.2:1000'] });
    left.receive(rightCheck(), '192.0.2.2:1000', FROM, network.now);
    const [answer] = left.answers;
    t.match(answer, { base: '192.0.2.2:1000', to: FROM });
    t.match(answer?.message, { class: 'success', attributes: { xorMappedAddress: FROM } });
    t.ok(answer?.message.hasValidIntegrity(encodeUtf8(LEFT.password), crypto));
  });

  await t.test('what is not authentic gets no answer and changes nothing', async (t) => {
    const forged = [
      rightCheck({ remote: { ...LEFT, password: 'wrong' } }),
      rightCheck({ remote: { ...LEFT, usernameFragment: 'other' } }),
      rightCheck({ local: { ...RIGHT, usernameFragment: 'other' } }),
      encodeStun(
        {
          class: 'request',
          method: 'binding',
          transactionId: new Uint8Array(12),
          attributes: { username: 'left:rght', priority: 1 },
        },
        { crypto },
      ),
    ];
    const { network, left } = alone();
    for (const payload of forged) left.receive(payload, '192.0.2.1:1000', FROM, network.now);
    t.same(left.sent, []);
    t.equal(left.agent.drops['request-not-authentic'], 4);
  });

  await t.test('a check on a base that is gone is not answered', async (t) => {
    const { network, left } = alone();
    left.receive(rightCheck(), 'relay eu 4', FROM, network.now);
    t.same(left.sent, []);
    t.equal(left.agent.drops['request-to-unknown-base'], 1);
  });

  await t.test('a check with an attribute that must be understood and is not: 420', async (t) => {
    const { network, left } = alone();
    const message = decoded(rightCheck());
    const received = { message: { ...message, unknownRequired: [0x7fff] }, base: '192.0.2.1:1000' };
    left.agent.handleStun({ ...received, from: FROM }, network.now);
    left.settle(network.now);
    const [answer] = left.answers;
    t.match(answer?.message.attributes, { errorCode: { code: 420 }, unknownAttributes: [0x7fff] });
    t.same(left.checks, []);
  });

  await t.test('a check without a priority: 400', async (t) => {
    const { network, left } = alone();
    const attributes: StunAttributes = { username: 'left:rght' };
    const payload = encodeStun(
      { class: 'request', method: 'binding', transactionId: new Uint8Array(12), attributes },
      { integrityKey: encodeUtf8(LEFT.password), crypto },
    );
    left.receive(payload, '192.0.2.1:1000', FROM, network.now);
    t.match(left.answers[0]?.message.attributes, { errorCode: { code: 400 } });
    t.same(left.checks, []);
  });

  await t.test('a forged answer, and one nobody asked for, change nothing', async (t) => {
    const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
    answerLast(left, network, undefined, { password: 'wrong' });
    answerLast(left, network, { class: 'error', code: 403 }, { password: 'wrong' });
    t.same(left.valid, []);
    answerLast(left, network);
    t.equal(left.valid.length, 1);
    answerLast(left, network);
    t.match(left.agent.drops, { 'answer-not-authentic': 2, 'answer-unexpected': 1 });
    t.equal(left.events.length, 1);
  });

  await t.test(
    'an answer from elsewhere than was asked is ignored (RFC 8445 §7.2.5.2.1)',
    async (t) => {
      const { network, left } = alone({ local: ['192.0.2.1:1000', '192.0.2.2:1000'] });
      left.agent.setRemoteCandidates([host('198.51.100.1:2000')], network.now);
      left.settle(network.now);
      answerLast(left, network, undefined, { from: at('198.51.100.1:2001') });
      answerLast(left, network, undefined, { base: '192.0.2.2:1000' });
      t.same(left.valid, []);
      t.equal(left.agent.drops['answer-from-elsewhere'], 2);
      answerLast(left, network);
      t.equal(left.valid.length, 1, 'and the right one still counts');
    },
  );

  await t.test('an error answer fails the pair, and a valid one is gone', async (t) => {
    const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
    answerLast(left, network);
    left.agent.probe(LEFT_PAIR, network.now);
    left.settle(network.now);
    answerLast(left, network, { class: 'error', code: 403 });
    t.same(left.valid, []);
    t.match(left.events.at(-1)?.event, { type: 'pair-gone', pair: LEFT_PAIR });
    const count = left.checks.length;
    left.agent.setRemoteCandidates([host('198.51.100.1:2000')], network.now);
    network.run(9_000);
    t.equal(left.checks.length, count, 'it is not tried again');
    network.run(2_000);
    t.match(left.events.at(-1)?.event, { type: 'failed' });
  });

  await t.test('indications and other methods are no business of ours', async (t) => {
    const { network, left } = alone();
    for (const message of [
      { class: 'indication', method: 'binding' },
      { class: 'request', method: 'allocate' },
    ] as const) {
      const payload = encodeStun(
        { ...message, transactionId: new Uint8Array(12), attributes: {} },
        { crypto },
      );
      left.receive(payload, '192.0.2.1:1000', FROM, network.now);
    }
    t.same(left.sent, []);
    t.equal(
      Object.values(left.agent.drops).reduce((a, b) => a + b),
      0,
    );
  });
});

await t.test('peer-reflexive candidates', async (t) => {
  await t.test(
    'a check from an unknown address makes one, and is answered by a check',
    async (t) => {
      const { network, left } = alone();
      left.receive(rightCheck(), '192.0.2.1:1000', at('203.0.113.7:40000'), network.now);
      t.match(left.checks, [{ at: network.now, to: '203.0.113.7:40000' }]);
      answerLast(left, network);
      t.match(left.agent.validPairs(), [
        { remoteCandidate: { type: 'prflx', priority: 1_862_270_975 } },
      ]);
    },
  );

  await t.test('one that is signalled later is promoted in place', async (t) => {
    const { network, left } = alone();
    left.receive(rightCheck(), '192.0.2.1:1000', at('203.0.113.7:40000'), network.now);
    answerLast(left, network);
    left.agent.setRemoteCandidates([candidate('srflx', '203.0.113.7:40000')], network.now);
    t.match(left.agent.validPairs(), [{ remoteCandidate: { type: 'srflx' } }]);
    t.same(left.eventsOf('pair-gone'), []);
  });

  await t.test(
    'a mapped address that is new makes no pair: what leaves, leaves from the base',
    async (t) => {
      const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
      answerLast(left, network, { class: 'success', from: at('203.0.113.50:5') });
      network.run(1000);
      t.same(left.valid, ['192.0.2.1:1000 → 198.51.100.1:2000']);
      t.equal(left.checks.length, 1);
    },
  );

  await t.test('nine unproven ones: the oldest goes, a valid one never', async (t) => {
    const { network, left } = alone();
    const source = (n: number) => at(`203.0.113.7:${40_000 + n}`);
    left.receive(rightCheck(), '192.0.2.1:1000', source(0), network.now);
    answerLast(left, network);
    for (let n = 1; n <= 9; n++) {
      left.receive(rightCheck(), '192.0.2.1:1000', source(n), network.now);
    }
    network.run(2000);
    const checked = new Set(left.checks.map(({ to }) => to));
    t.notOk(checked.has(source(1)), 'dropped before its turn');
    for (let n = 2; n <= 9; n++) t.ok(checked.has(source(n)));
    t.same(left.valid, ['192.0.2.1:1000 → 203.0.113.7:40000']);
  });

  await t.test('of nine valid ones the one silent for longest goes', async (t) => {
    const { network, left } = alone();
    for (let n = 0; n <= 8; n++) {
      left.receive(rightCheck(), '192.0.2.1:1000', at(`203.0.113.7:${40_000 + n}`), network.now);
      network.run(20);
      answerLast(left, network);
    }
    t.equal(left.valid.length, 8);
    t.match(left.eventsOf('pair-gone'), [{ pair: { remote: '203.0.113.7:40000' } }]);
  });

  await t.test('a path opens through a NAT whose mapping nobody could signal', async (t) => {
    const network = new Network();
    const left = network.addPeer('controlling', 'left');
    const right = network.addPeer('controlled', 'right');
    left.nat = new Nat('203.0.113.1', { isSymmetric: true });
    left.open('10.0.0.2:1000', network.now);
    right.open('198.51.100.1:2000', network.now);
    introduce(network, left, right);
    network.run(100);
    t.same(left.valid, ['10.0.0.2:1000 → 198.51.100.1:2000']);
    t.same(right.valid, ['198.51.100.1:2000 → 203.0.113.1:40000']);
  });

  await t.test('two NATs are opened from both sides, with candidates of the outside', async (t) => {
    const network = new Network();
    const left = network.addPeer('controlling', 'left');
    const right = network.addPeer('controlled', 'right');
    left.nat = new Nat('203.0.113.1');
    right.nat = new Nat('203.0.113.2');
    left.open('10.0.0.2:1000', network.now);
    right.open('10.0.0.2:2000', network.now);
    // As a STUN server saw them.
    const server = at('192.0.2.200:3478');
    const outside = ({ nat, candidates }: Peer) => {
      const [first] = candidates;
      if (nat === undefined || first === undefined) throw new Error('no NAT');
      return candidate('srflx', nat.outward(first.address, server));
    };
    left.agent.setRemoteCandidates([outside(right)], network.now);
    right.agent.setRemoteCandidates([outside(left)], network.now);
    network.run(500);
    t.same(left.valid, ['10.0.0.2:1000 → 203.0.113.2:40000']);
    t.same(right.valid, ['10.0.0.2:2000 → 203.0.113.1:40000']);
  });
});

await t.test('nomination', async (t) => {
  await t.test('a nominated pair is told to the other side, with each check on it', async (t) => {
    const { network, left, right } = createPair();
    network.run(100);
    t.same(right.eventsOf('nominated'), []);
    left.agent.nominate(LEFT_PAIR, network.now);
    network.run(100);
    t.match(right.eventsOf('nominated'), [{ pair: RIGHT_PAIR }]);
    left.agent.probe(LEFT_PAIR, network.now);
    network.run(100);
    t.equal(right.eventsOf('nominated').length, 2);
  });

  await t.test('another pair may be nominated: the newest counts', async (t) => {
    const network = new Network();
    const left = network.addPeer('controlling', 'left');
    const right = network.addPeer('controlled', 'right');
    left.open('192.0.2.1:1000', network.now);
    left.open('[2001:db8::1]:1000', network.now);
    right.open('198.51.100.1:2000', network.now);
    right.open('[2001:db8::2]:2000', network.now);
    introduce(network, left, right);
    network.run(200);
    const better = { base: '[2001:db8::1]:1000', remote: at('[2001:db8::2]:2000') };
    left.agent.nominate(LEFT_PAIR, network.now);
    network.run(100);
    left.agent.nominate(better, network.now);
    network.run(100);
    t.same(
      right.eventsOf('nominated').map(({ pair }) => pair.remote),
      ['192.0.2.1:1000', '[2001:db8::1]:1000'],
    );
    left.agent.probe(LEFT_PAIR, network.now);
    left.settle(network.now);
    t.equal(left.checks.at(-1)?.message.attributes.useCandidate, undefined);
  });

  await t.test('a pair that is not valid yet is nominated as soon as it is', async (t) => {
    const { network, left } = alone({ role: 'controlled', remote: [host('198.51.100.1:2000')] });
    const nominating = rightCheck({ role: 'controlling', nominates: true });
    left.receive(nominating, '192.0.2.1:1000', at('198.51.100.1:2000'), network.now);
    t.same(left.events, []);
    network.run(20);
    answerLast(left, network);
    t.same(
      left.events.map(({ event }) => event.type),
      ['pair-valid', 'nominated'],
    );
    left.agent.probe(LEFT_PAIR, network.now);
    left.settle(network.now);
    answerLast(left, network);
    t.equal(left.eventsOf('nominated').length, 1, 'our own answers nominate nothing');
  });

  await t.test('only the controlling side nominates, and only a valid pair', async (t) => {
    const { network, left, right } = createPair();
    left.agent.nominate(LEFT_PAIR, network.now);
    right.agent.nominate(RIGHT_PAIR, network.now);
    network.run(100);
    right.agent.nominate(RIGHT_PAIR, network.now);
    network.run(100);
    for (const { message } of [...left.checks, ...right.checks]) {
      t.equal(message.attributes.useCandidate, undefined);
    }
  });
});

await t.test('role conflict (RFC 8445 §7.3.1.1)', async (t) => {
  for (const role of ['controlling', 'controlled'] as const) {
    await t.test(`two agents that both are ${role} settle it and find a path`, async (t) => {
      for (let seed = 1; seed <= 20; seed++) {
        const network = new Network();
        const left = network.addPeer(role, 'left', seed);
        const right = network.addPeer(role, 'right', seed);
        left.open('192.0.2.1:1000', network.now);
        right.open('198.51.100.1:2000', network.now);
        introduce(network, left, right);
        network.run(1000);
        t.same([left.agent.role, right.agent.role].sort(), ['controlled', 'controlling']);
        t.equal(left.valid.length, 1, `seed ${seed}`);
        t.equal(right.valid.length, 1, `seed ${seed}`);
        t.same(left.eventsOf('failed'), []);
      }
    });
  }

  await t.test('the larger tie-breaker controls; the smaller is told 487', async (t) => {
    const { network, left } = alone();
    const from = at('198.51.100.1:2000');
    const small = rightCheck({ role: 'controlling', tieBreaker: new Uint8Array(8) });
    left.receive(small, '192.0.2.1:1000', from, network.now);
    t.match(left.answers[0]?.message, { class: 'error', attributes: { errorCode: { code: 487 } } });
    t.equal(left.agent.role, 'controlling');
    const large = rightCheck({ role: 'controlling', tieBreaker: new Uint8Array(8).fill(0xff) });
    left.receive(large, '192.0.2.1:1000', from, network.now);
    t.match(left.answers[1]?.message, { class: 'success' });
    t.equal(left.agent.role, 'controlled');
  });

  await t.test('told 487 we switch and check again, once', async (t) => {
    const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
    answerLast(left, network, { class: 'error', code: 487 });
    network.run(20);
    t.equal(left.agent.role, 'controlled');
    t.ok(left.checks.at(-1)?.message.attributes.iceControlled);
    answerLast(left, network);
    t.equal(left.valid.length, 1);
  });
});

await t.test('changes', async (t) => {
  await t.test('the pairs of a base go with it', async (t) => {
    const { network, left } = createPair();
    network.run(100);
    left.agent.removeBase('192.0.2.1:1000', network.now);
    const removedAt = network.now;
    network.run(100);
    t.same(left.eventsOf('pair-gone'), [{ type: 'pair-gone', pair: LEFT_PAIR }]);
    t.same(left.valid, []);
    network.run(20_000);
    t.same(left.events.at(-1), { at: after(removedAt, ICE_TIMEOUT), event: { type: 'failed' } });
  });

  await t.test('a base that comes back is paired anew', async (t) => {
    const { network, left } = createPair();
    network.run(100);
    left.agent.removeBase('192.0.2.1:1000', network.now);
    left.open('192.0.2.1:1000', network.now);
    network.run(100);
    t.equal(left.eventsOf('pair-valid').length, 2);
    t.same(left.eventsOf('failed'), []);
  });

  await t.test(
    'a candidate that is signalled no more and was not valid is tried no more',
    async (t) => {
      const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
      left.agent.setRemoteCandidates([], network.now);
      network.run(5000);
      t.equal(left.checks.length, 1);
    },
  );

  await t.test('one that works goes only after 10 s of silence', async (t) => {
    const { network, left } = createPair();
    network.run(100);
    left.agent.setRemoteCandidates([], network.now);
    network.run(5000);
    t.equal(left.valid.length, 1);
    left.agent.probe(LEFT_PAIR, network.now);
    network.run(100);
    const heardAt = left.agent.validPairs()[0]?.heardAt ?? network.now;
    network.run(20_000);
    t.same(left.events.at(-2), {
      at: after(heardAt, 10_000),
      event: { type: 'pair-gone', pair: LEFT_PAIR },
    });
  });

  await t.test('one that comes back in time stays', async (t) => {
    const { network, left } = createPair();
    network.run(100);
    left.agent.setRemoteCandidates([], network.now);
    network.run(5000);
    left.agent.setRemoteCandidates([host('198.51.100.1:2000')], network.now);
    network.run(60_000);
    t.equal(left.valid.length, 1);
    t.same(left.eventsOf('pair-gone'), []);
  });

  await t.test('an invalidated pair is checked like a new one', async (t) => {
    const { network, left } = createPair();
    network.run(100);
    network.link = () => undefined;
    left.agent.probe(LEFT_PAIR, network.now);
    left.settle(network.now);
    const probe = left.checks.at(-1);
    left.agent.invalidate(LEFT_PAIR, network.now);
    const invalidatedAt = network.now;
    left.settle(network.now);
    t.same(left.valid, []);
    t.not(left.checks.at(-1), probe, 'a check leaves at once');
    t.notOk(left.agent.owns(probe?.message.transactionId ?? new Uint8Array(12)));
    network.run(20_000);
    t.same(left.events.at(-1), {
      at: after(invalidatedAt, ICE_TIMEOUT),
      event: { type: 'failed' },
    });
  });

  await t.test('a pair that breaks before it ever was valid puts off no failure', async (t) => {
    const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
    const start = network.now;
    for (let i = 0; i < 4; i++) {
      network.run(4_000);
      left.agent.invalidate(LEFT_PAIR, network.now);
      left.settle(network.now);
    }
    t.same(left.events, [{ at: after(start, ICE_TIMEOUT), event: { type: 'failed' } }]);
    const checks = left.checks.length;
    network.run(ICE_TIMEOUT);
    t.equal(left.checks.length, checks);
  });

  await t.test('a recheck tries what failed and leaves alone what is valid', async (t) => {
    const { network, left } = alone({
      remote: [host('198.51.100.1:2000'), host('198.51.100.2:2000', 1)],
    });
    answerLast(left, network);
    network.run(20_000);
    const count = left.checks.length;
    left.agent.recheck(network.now);
    network.run(20_000);
    const later = left.checks.slice(count);
    t.ok(later.length > 5);
    t.ok(later.every(({ to }) => to === '198.51.100.2:2000'));
    t.equal(left.valid.length, 1);
    t.same(left.eventsOf('failed'), []);
  });

  await t.test('a stopped agent is silent until the peer checks', async (t) => {
    const { network, left, right } = createPair();
    network.run(100);
    left.agent.probe(LEFT_PAIR, network.now);
    left.agent.stop(network.now);
    left.settle(network.now);
    const count = left.checks.length;
    network.run(60_000);
    t.equal(left.checks.length, count);
    t.same(left.valid, []);
    t.same(
      left.events.map(({ event }) => event.type),
      ['pair-valid'],
    );
    right.agent.probe(RIGHT_PAIR, network.now);
    network.run(100);
    t.equal(left.valid.length, 1);
  });

  await t.test('a peer that hears no answers postpones no failure with its checks', async (t) => {
    const { network, left } = alone({ remote: [host('198.51.100.1:2000')] });
    const start = network.now;
    for (let i = 0; i < 300; i++) {
      left.receive(rightCheck(), '192.0.2.1:1000', at('198.51.100.1:2000'), network.now);
      network.run(100);
    }
    t.same(left.events, [{ at: after(start, ICE_TIMEOUT), event: { type: 'failed' } }]);
    t.ok((left.checks.at(-1)?.at ?? 0) > network.now - 1000, 'but is checked on');
  });

  await t.test('candidates that come one by one are paired as they come', async (t) => {
    const { network, left } = alone({ local: [] });
    left.agent.setRemoteCandidates([host('198.51.100.1:2000')], network.now);
    network.run(3000);
    left.open('192.0.2.1:1000', network.now);
    network.run(1000);
    left.agent.setRemoteCandidates(
      [host('198.51.100.1:2000'), candidate('srflx', '203.0.113.7:40000')],
      network.now,
    );
    network.run(1000);
    left.open('192.0.2.2:1000', network.now, 1);
    network.run(1000);
    const checked = new Set(left.checks.map(({ base, to }) => `${base} ${to}`));
    t.equal(checked.size, 4);
    t.same(left.eventsOf('failed'), []);
  });

  await t.test('a NAT that forgets: the pair is found again at its new address', async (t) => {
    const network = new Network();
    const left = network.addPeer('controlling', 'left');
    const right = network.addPeer('controlled', 'right');
    left.nat = new Nat('203.0.113.1');
    left.open('10.0.0.2:1000', network.now);
    right.open('198.51.100.1:2000', network.now);
    introduce(network, left, right);
    network.run(100);
    left.nat.forget();
    left.agent.probe({ base: '10.0.0.2:1000', remote: at('198.51.100.1:2000') }, network.now);
    network.run(100);
    t.ok(right.valid.includes('198.51.100.1:2000 → 203.0.113.1:40001'));
  });

  await t.test('pairs that nobody knows are ignored', async (t) => {
    const { network, left } = alone();
    left.agent.probe(LEFT_PAIR, network.now);
    left.agent.nominate(LEFT_PAIR, network.now);
    left.agent.invalidate(LEFT_PAIR, network.now);
    left.settle(network.now);
    t.same(left.sent, []);
  });
});
