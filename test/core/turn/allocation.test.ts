import t from 'tap';
import type { SocketAddress } from '../../../core/net/socket-address.ts';
import { encodeHex } from '../../../core/sansio/hex.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { encodeStun } from '../../../core/stun/message.ts';
import type { AllocationEvent } from '../../../core/turn/allocation.ts';
import {
  crypto,
  MAPPED,
  methods,
  MINUTE,
  OTHER_PEER,
  PEER,
  RELAYED_4,
  RELAYED_6,
  Scene,
  SECOND,
  TurnServer,
  UNIX_MS,
  type Reply,
  type Script,
} from './turn-scene.ts';

/** HMAC-SHA1 of "1767312000:r1" under "north", by OpenSSL. */
const MINTED_PASSWORD = 'bJ6Hyy3QClaQ9KwIxoSUqr/p+fU=';

await t.test(
  'an allocation is asked for without credentials, then with the realm and nonce of the 401',
  async (t) => {
    const scene = new Scene();
    t.equal(scene.agent.state, 'allocating');
    scene.run(SECOND);
    const [first, second, ...more] = scene.sent.map(({ request }) => request);
    t.same(more, []);
    t.same(first?.attributes, {
      software: 'culvert',
      requestedTransport: 17,
      additionalAddressFamily: 6,
      draftAdditionalAddressFamily: 6,
    });
    t.notOk(first?.hasIntegrity);
    t.match(second?.attributes, { username: 'alice', realm: 'relay.test', nonce: 'nonce-1' });
    t.same(scene.takeEvents(), [
      { type: 'allocated', relayed: [RELAYED_4, RELAYED_6], mapped: MAPPED },
    ]);
    t.equal(scene.agent.state, 'allocated');
    t.same(scene.agent.relayed, [RELAYED_4, RELAYED_6]);
    t.equal(scene.agent.rtt, 20);
  },
);

await t.test('a server with one address family grants what it has (RFC 8656 §7.3)', async (t) => {
  const scene = new Scene();
  scene.server.script = onceAuthenticated(() => ({
    attributes: {
      // The second is what coturn puts in the place of the one that is missing.
      xorRelayedAddresses: [RELAYED_4, '0.0.0.0:0' as SocketAddress],
      xorMappedAddress: MAPPED,
      lifetime: 600,
      addressErrorCode: { family: 6, code: 440, reason: 'no IPv6' },
    },
  }));
  scene.run(SECOND);
  t.same(scene.takeEvents(), [{ type: 'allocated', relayed: [RELAYED_4], mapped: MAPPED }]);
});

await t.test('a server that refuses a second family is asked for IPv4 alone', async (t) => {
  for (const code of [440, 420]) {
    const scene = new Scene();
    scene.server.script = onceAuthenticated(({ attributes }) =>
      attributes.additionalAddressFamily === 6 ? { code } : undefined,
    );
    scene.run(SECOND);
    t.same(scene.agent.relayed, [RELAYED_4], `${code}`);
  }
  const scene = new Scene();
  scene.server.script = onceAuthenticated(() => ({ code: 440 }));
  scene.run(SECOND);
  t.same(scene.takeEvents(), [{ type: 'failed', why: 'refused', code: 440 }], 'not for ever');
});

await t.test(
  'an answer without relayed address, mapped address or lifetime breaks the protocol',
  async (t) => {
    const whole = { xorRelayedAddresses: [RELAYED_4], xorMappedAddress: MAPPED, lifetime: 600 };
    for (const missing of ['xorRelayedAddresses', 'xorMappedAddress', 'lifetime'] as const) {
      const scene = new Scene();
      const { [missing]: _, ...attributes } = whole;
      scene.server.script = onceAuthenticated(() => ({ attributes }));
      scene.run(SECOND);
      t.same(scene.takeEvents(), [{ type: 'failed', why: 'refused' }], missing);
    }
  },
);

await t.test(
  'over UDP a request goes out at 0, 1, 2.5 and 4.75 s and is given up at 8.125 s',
  async (t) => {
    const silent = new Scene({}, deaf());
    silent.run(20 * SECOND);
    t.same(
      silent.sent.map(({ at }) => at),
      [0, 1000, 2500, 4750],
    );
    t.same(silent.events, [{ at: 8125, event: { type: 'failed', why: 'no-response' } }]);
    t.equal(idsOf(silent).size, 1, 'an Allocate keeps its id: another would be another allocation');
    t.equal(silent.agent.pollTimeout(), undefined);
  },
);

await t.test(
  'a request that is repeated has a fresh transaction id, but for Allocate',
  async (t) => {
    const scene = Scene.allocated();
    scene.server.script = () => 'silence';
    scene.run(6 * MINUTE);
    const refreshes = scene.sent.filter(({ request }) => request.method === 'refresh');
    t.equal(refreshes.length, 4);
    t.equal(idsOf(scene).size, scene.sent.length);
  },
);

await t.test('over a stream a request goes out once and is given up at 8 s', async (t) => {
  const scene = new Scene({ transport: 'stream' }, deaf());
  scene.run(20 * SECOND);
  t.same(
    scene.sent.map(({ at }) => at),
    [0],
  );
  t.same(scene.events, [{ at: 8000, event: { type: 'failed', why: 'no-response' } }]);
});

await t.test(
  'an answer to an earlier repetition is an answer, but tells no round trip',
  async (t) => {
    const scene = new Scene();
    scene.latency = 1_800;
    // The first message went out with the short latency, before it could be set.
    scene.run(10 * SECOND);
    t.equal(scene.agent.state, 'allocated');
    t.equal(scene.agent.rtt, 20, 'of the 401 alone');
    t.same(methods(scene.sent), ['allocate', 'allocate', 'allocate']);
  },
);

await t.test('the round trip is averaged, each sample counting for an eighth', async (t) => {
  const scene = Scene.allocated();
  scene.latency = 100;
  scene.agent.refresh(scene.now);
  scene.run(SECOND);
  t.equal(scene.agent.rtt, (7 * 20 + 100) / 8);
});

await t.test('credentials that the server does not take fail the allocation at once', async (t) => {
  const credentials = { type: 'long-term', username: 'alice', password: 'wrong' } as const;
  const scene = new Scene({ credentials });
  scene.run(SECOND);
  t.same(scene.events, [
    { at: 40, event: { type: 'failed', why: 'wrong-credentials', code: 401 } },
  ]);
  t.equal(scene.sent.length, 2);
});

await t.test(
  'credentials are minted from a shared secret: expiry and name, and their HMAC-SHA1',
  async (t) => {
    const scene = new Scene({ credentials: { type: 'shared-secret', secret: 'north', id: 'r1' } });
    scene.run(SECOND);
    const username = scene.sent[1]?.request.attributes.username;
    t.equal(username, `${UNIX_MS / 1000 + 86_400}:r1`);
    const server = new TurnServer();
    server.passwords.set(`${UNIX_MS / 1000 + 86_400}:r1`, MINTED_PASSWORD);
    const accepted = new Scene(
      { credentials: { type: 'shared-secret', secret: 'north', id: 'r1' } },
      server,
    );
    accepted.run(SECOND);
    t.equal(accepted.agent.state, 'allocated');
  },
);

await t.test(
  'refused credentials are minted anew before that is believed: the calendar may have been set',
  async (t) => {
    let offset = -30 * 86_400_000;
    const server = new TurnServer();
    server.passwords.set(`${UNIX_MS / 1000 + 86_400}:r1`, MINTED_PASSWORD);
    const scene = new Scene(
      {
        credentials: { type: 'shared-secret', secret: 'north', id: 'r1' },
        unixMs: () => UNIX_MS + offset,
      },
      server,
    );
    offset = 0;
    scene.run(SECOND);
    t.equal(scene.agent.state, 'allocated');
    t.equal(scene.sent.length, 3);

    const refused = new Scene({
      credentials: { type: 'shared-secret', secret: 'south', id: 'r1' },
    });
    refused.run(10 * SECOND);
    t.same(refused.takeEvents(), [{ type: 'failed', why: 'wrong-credentials', code: 401 }]);
    t.equal(refused.sent.length, 2, 'within the same second they would be the same');
  },
);

await t.test(
  'a living allocation keeps its user name; the next has one minted anew after 12 h',
  async (t) => {
    const server = new TurnServer();
    const mint = (unixMs: number) => {
      const username = `${(Math.floor(unixMs / 43_200_000) + 2) * 43_200}:r1`;
      const mac = crypto.hmacSha1(Buffer.from('north'), Buffer.from(username));
      server.passwords.set(username, Buffer.from(mac).toString('base64'));
      return username;
    };
    const first = mint(UNIX_MS);
    const options = { credentials: { type: 'shared-secret', secret: 'north', id: 'r1' } } as const;
    const scene = Scene.allocated(options, server);
    scene.run(13 * 60 * MINUTE);
    t.same(
      new Set(scene.takeSent().flatMap(({ request }) => request.attributes.username ?? [])),
      new Set([first]),
    );
    server.allocation = undefined;
    const second = mint(UNIX_MS + scene.now + 20);
    scene.agent.refresh(scene.now);
    scene.run(SECOND);
    t.equal(scene.agent.state, 'allocated');
    t.equal(scene.sent.at(-1)?.request.attributes.username, second);
  },
);

await t.test('a start within 12 h of another has the same name', async (t) => {
  const options = { credentials: { type: 'shared-secret', secret: 'north', id: 'r1' } } as const;
  const names = [0, 11 * 60 * MINUTE].map((later) => {
    const scene = new Scene({ ...options, unixMs: (at) => UNIX_MS + later + at });
    scene.run(SECOND);
    return scene.takeSent().at(-1)?.request.attributes.username;
  });
  t.equal(names[0], names[1]);
  t.type(names[0], 'string');
});

await t.test('a stale nonce (438) is replaced, for one request as for many', async (t) => {
  const scene = Scene.allocated();
  scene.server.nonce = 'nonce-2';
  scene.agent.channelTo(PEER, scene.now);
  scene.agent.channelTo(OTHER_PEER, scene.now);
  scene.run(SECOND);
  t.same(
    scene.takeSent().map(({ request }) => request.attributes.nonce),
    ['nonce-1', 'nonce-1', 'nonce-2', 'nonce-2'],
  );
  t.equal(scene.takeEvents().length, 2);
  scene.agent.refresh(scene.now);
  scene.run(SECOND);
  t.equal(scene.takeSent().length, 1, 'and kept');
});

await t.test('a server that finds every nonce stale is given up', async (t) => {
  const scene = Scene.allocated();
  let nonce = 0;
  scene.server.script = () => ({
    code: 438,
    attributes: { realm: 'relay.test', nonce: `${nonce++}` },
  });
  scene.agent.refresh(scene.now);
  scene.run(SECOND);
  t.same(scene.takeEvents(), [{ type: 'failed', why: 'refused', code: 438 }]);
  t.equal(scene.sent.length, 5);
});

await t.test(
  'a challenge without realm or nonce, or with endless ones, is no challenge',
  async (t) => {
    for (const attributes of [
      {},
      { realm: 'relay.test' },
      { nonce: 'n' },
      { realm: 'relay.test', nonce: 'n'.repeat(800) },
    ]) {
      const scene = new Scene(
        {},
        deaf(() => ({ code: 401, attributes })),
      );
      scene.run(10 * SECOND);
      t.same(scene.takeEvents(), [{ type: 'failed', why: 'no-response' }]);
    }
  },
);

await t.test('another realm is followed', async (t) => {
  const scene = Scene.allocated();
  scene.server.realm = 'elsewhere.test';
  scene.agent.channelTo(PEER, scene.now);
  scene.run(SECOND);
  t.match(scene.takeEvents(), [{ type: 'channel-bound', peer: PEER }]);
  t.equal(scene.sent.at(-1)?.request.attributes.realm, 'elsewhere.test');
});

await t.test('an allocation in our way (437) is given back first', async (t) => {
  const server = new TurnServer();
  server.allocation = { username: 'alice', channels: new Map() };
  const scene = new Scene({}, server);
  scene.run(SECOND);
  t.same(methods(scene.sent), ['allocate', 'allocate', 'refresh:0', 'allocate']);
  t.equal(scene.agent.state, 'allocated');
});

await t.test(
  'an allocation in our way is given back also where 437 comes before any challenge',
  async (t) => {
    const server = new TurnServer();
    server.allocation = { username: 'alice', channels: new Map() };
    const scene = new Scene({}, server);
    server.script = ({ method }) =>
      method === 'allocate' && server.allocation !== undefined ? { code: 437 } : undefined;
    scene.run(10 * SECOND);
    t.equal(scene.agent.state, 'allocated');
  },
);

await t.test('an allocation in our way that is somebody else’s cannot be given back', async (t) => {
  const scene = new Scene();
  scene.server.script = onceAuthenticated(({ method }) => ({
    code: method === 'allocate' ? 437 : 441,
  }));
  scene.run(SECOND);
  t.same(scene.takeEvents(), [{ type: 'failed', why: 'held-by-another-login', code: 441 }]);
});

await t.test('a server that takes its time to let go of an allocation is given 2 s', async (t) => {
  const server = new TurnServer();
  server.allocation = { username: 'alice', channels: new Map() };
  const scene = new Scene({}, server);
  const kept = { attributes: { lifetime: 0 } };
  server.script = onceAuthenticated(({ method }) => (method === 'refresh' ? kept : undefined));
  scene.run(SECOND);
  server.allocation = undefined;
  scene.run(2 * SECOND);
  t.same(methods(scene.sent), ['allocate', 'allocate', 'refresh:0', 'allocate', 'allocate']);
  t.same(
    scene.events.map(({ at }) => at),
    [2100],
  );
});

await t.test('a server that sees an allocation in our way for ever is given up', async (t) => {
  const scene = new Scene();
  scene.server.script = onceAuthenticated(({ method }) =>
    method === 'allocate' ? { code: 437 } : { attributes: { lifetime: 0 } },
  );
  scene.run(10 * SECOND);
  t.same(scene.takeEvents(), [{ type: 'failed', why: 'refused', code: 437 }]);
  t.ok(scene.sent.length < 10);
});

await t.test('each error has its meaning', async (t) => {
  const failures = [
    [300, 'refused'],
    [400, 'refused'],
    [403, 'refused'],
    [441, 'held-by-another-login'],
    [442, 'refused'],
    [486, 'quota-reached'],
    [500, 'refused'],
    [508, 'out-of-capacity'],
  ] as const;
  for (const [code, why] of failures) {
    const scene = new Scene();
    scene.server.script = onceAuthenticated(() => ({ code }));
    scene.run(SECOND);
    t.same(scene.takeEvents(), [{ type: 'failed', why, code }], `${code}`);
  }
});

await t.test(
  'an error without MESSAGE-INTEGRITY ends nothing early, but names the failure when time is up',
  async (t) => {
    const scene = new Scene(
      {},
      deaf(() => ({ code: 508 })),
    );
    scene.run(20 * SECOND);
    t.same(scene.events, [
      { at: 8125, event: { type: 'failed', why: 'out-of-capacity', code: 508 } },
    ]);
    t.equal(scene.sent.length, 4);
    t.equal(scene.agent.drops.unauthenticated, 4);
  },
);

await t.test('a success without or with wrong MESSAGE-INTEGRITY changes nothing', async (t) => {
  for (const password of [undefined, 'guessed']) {
    const server = new TurnServer();
    const scene = new Scene({}, server);
    server.script = onceAuthenticated(() => {
      if (password !== undefined) server.passwords.set('alice', password);
      return {
        isSigned: password !== undefined,
        attributes: { xorRelayedAddresses: [RELAYED_4], xorMappedAddress: MAPPED, lifetime: 600 },
      };
    });
    scene.run(SECOND);
    t.equal(scene.agent.state, 'allocating');
    t.same(scene.agent.drops, { malformed: 0, unsolicited: 0, unauthenticated: 1 });
  }
});

await t.test(
  'an answer that must be understood and is not changes nothing (RFC 8489 §6.3.3)',
  async (t) => {
    const scene = Scene.allocated();
    scene.server.script = () => 'silence';
    scene.agent.refresh(scene.now);
    scene.settle();
    const { request } = scene.sent[0]!;
    const reply = scene.server.encode(request, { isSigned: false, attributes: { priority: 1 } });
    // PRIORITY, 0x0024, stands first; 0x0033 is nobody's.
    reply[21] = 0x33;
    scene.agent.handleMessage(withoutFingerprint(reply), scene.now);
    t.equal(scene.agent.drops.malformed, 1);
  },
);

await t.test(
  'the allocation is refreshed at half of the lifetime that was granted last',
  async (t) => {
    const scene = Scene.allocated();
    const allocatedAt = 40;
    scene.server.lifetime = 200;
    scene.run(10 * MINUTE);
    const times = scene.takeSent().filter(({ request }) => request.method === 'refresh');
    const first = allocatedAt + 300_000;
    t.same(
      times.slice(0, 3).map(({ at }) => at),
      [first, first + 100_020, first + 200_040],
    );
    t.same(scene.takeEvents(), []);
  },
);

await t.test('a lifetime beyond all reason is taken for an hour', async (t) => {
  const server = new TurnServer();
  server.lifetime = 0xffff_ffff;
  const scene = Scene.allocated({}, server);
  scene.run(59 * MINUTE);
  t.same(
    scene.takeSent().flatMap(({ request, at }) => (request.method === 'refresh' ? at : [])),
    [40 + 30 * MINUTE],
  );
});

await t.test('an allocation that cannot be refreshed fails', async (t) => {
  const endings: readonly (readonly [Reply | 'silence', AllocationEvent])[] = [
    ['silence', { type: 'failed', why: 'no-response' }],
    [{ code: 403 }, { type: 'failed', why: 'refused', code: 403 }],
    [{ attributes: {} }, { type: 'failed', why: 'refused' }],
  ];
  for (const [reply, expected] of endings) {
    const scene = Scene.allocated();
    scene.server.script = ({ method }) => (method === 'binding' ? undefined : reply);
    scene.run(10 * MINUTE);
    t.same(scene.takeEvents(), [expected]);
    t.same(scene.agent.relayed, []);
  }
});

await t.test('the end of the lifetime is the end, whatever is under way', async (t) => {
  const server = new TurnServer();
  server.lifetime = 4;
  const scene = Scene.allocated({}, server);
  server.script = () => 'silence';
  scene.run(MINUTE);
  t.same(scene.events, [{ at: 4040, event: { type: 'failed', why: 'no-response' } }]);
});

await t.test('a question that is asked again and again comes to its end after 8 s', async (t) => {
  const scene = Scene.allocated();
  scene.server.script = () => 'silence';
  for (let i = 0; i < 10; i++) {
    scene.agent.refresh(scene.now);
    scene.run(SECOND);
  }
  t.same(scene.events, [{ at: 9125, event: { type: 'failed', why: 'no-response' } }]);
  t.same(
    scene.sent.map(({ at }) => at),
    [1000, 2000, 3500, 5750],
  );
});

await t.test('a refresh that is lost on its way fails nothing', async (t) => {
  for (const lost of [1, 2, 3]) {
    const scene = Scene.allocated();
    let count = 0;
    scene.server.script = () => (++count <= lost ? 'silence' : undefined);
    scene.agent.refresh(scene.now);
    scene.run(20 * SECOND);
    t.same(scene.takeEvents(), []);
    t.equal(scene.agent.state, 'allocated');
  }
});

await t.test(
  'a server that lost the allocation gives another, and channels in use are bound again',
  async (t) => {
    for (const trigger of ['refresh', 'bind'] as const) {
      const scene = Scene.allocated();
      const channel = scene.agent.channelTo(PEER, scene.now);
      scene.run(SECOND);
      scene.takeEvents();
      scene.server.allocation = undefined;
      scene.takeSent();
      if (trigger === 'refresh') scene.agent.refresh(scene.now);
      else scene.agent.channelTo(OTHER_PEER, scene.now);
      scene.run(SECOND);
      const events = scene.takeEvents();
      t.match(events[0], { type: 'allocated' });
      t.match(events[1], { type: 'channel-bound', peer: PEER, channel: channel! });
      t.equal(events.length, trigger === 'bind' ? 3 : 2);
      t.equal(scene.server.allocation!.channels.get(channel!), PEER);
    }
  },
);

await t.test('a server that loses the allocation for ever is given up', async (t) => {
  const scene = Scene.allocated();
  scene.server.script = ({ method, hasIntegrity }) => {
    if (method !== 'allocate' || !hasIntegrity) return { code: 437 };
    scene.server.allocation = undefined;
    return undefined;
  };
  scene.agent.channelTo(PEER, scene.now);
  scene.run(10 * SECOND);
  t.match(scene.takeEvents().at(-1), { type: 'failed', why: 'refused', code: 437 });
  t.ok(scene.sent.length < 20);
});

await t.test(
  '25 s after the last answer or datagram a binding request keeps the NAT awake',
  async (t) => {
    const scene = Scene.allocated();
    scene.run(40 * SECOND);
    t.same(
      scene.sent.map(({ at, request }) => [at, request.method, request.hasIntegrity]),
      [[25_040, 'binding', false]],
    );
    scene.takeSent();
    for (let i = 0; i < 10; i++) {
      scene.agent.handleTraffic(0x4000, scene.now);
      scene.run(20 * SECOND);
    }
    t.same(scene.takeSent(), []);
  },
);

await t.test(
  'an unanswered keepalive decides nothing: the refresh that it leads to does',
  async (t) => {
    const scene = Scene.allocated();
    scene.server.script = ({ method }) => (method === 'binding' ? 'silence' : undefined);
    scene.run(27 * SECOND);
    t.same(methods(scene.sent), ['binding', 'refresh']);
    t.equal(scene.agent.state, 'allocated', 'a server that answers no binding requests');
    scene.server.script = () => 'silence';
    scene.run(35 * SECOND);
    t.match(scene.takeEvents(), [{ type: 'failed', why: 'no-response' }]);
  },
);

await t.test(
  'another mapped address leads to a refresh, and where that is unknown to a new allocation',
  async (t) => {
    const scene = Scene.allocated();
    const moved = '203.0.113.9:9999' as SocketAddress;
    scene.server.mapped = moved;
    scene.server.allocation = undefined;
    scene.run(27 * SECOND);
    t.match(scene.takeEvents(), [{ type: 'allocated', mapped: moved }]);
  },
);

await t.test('close gives the allocation back and is the end', async (t) => {
  const scene = Scene.allocated();
  scene.agent.channelTo(PEER, scene.now);
  scene.run(SECOND);
  scene.takeSent();
  scene.takeEvents();
  scene.agent.close(scene.now);
  scene.agent.close(scene.now);
  scene.run(10 * MINUTE);
  t.same(methods(scene.takeSent()), ['refresh:0']);
  t.same(scene.takeEvents(), [{ type: 'failed', why: 'closed' }]);
  t.equal(scene.server.allocation, undefined);
  t.equal(scene.agent.channelTo(PEER, scene.now), undefined);
  t.equal(scene.agent.peerOf(0x4000), undefined);
  scene.agent.refresh(scene.now);
  scene.agent.handleTraffic(0x4000, scene.now);
  t.equal(scene.agent.pollTimeout(), undefined);
  t.same(scene.run(MINUTE).takeSent(), []);
});

await t.test('an allocation that was never made has nothing to give back', async (t) => {
  const scene = new Scene({}, deaf());
  scene.agent.close(scene.now);
  scene.run(MINUTE);
  t.same(methods(scene.sent), ['allocate']);
});

await t.test('a Data indication is told, and a flood of them is dropped', async (t) => {
  const scene = Scene.allocated();
  const indication = dataIndication(PEER, new Uint8Array([1, 2, 3]));
  scene.agent.handleMessage(indication, scene.now);
  indication.fill(0);
  t.same(scene.agent.pollEvent(), { type: 'data', peer: PEER, payload: new Uint8Array([1, 2, 3]) });
  for (let i = 0; i < 1000; i++) {
    scene.agent.handleMessage(dataIndication(PEER, new Uint8Array([i])), scene.now);
  }
  scene.settle();
  t.equal(scene.takeEvents().length, 64);
});

await t.test('a driver that is late by hours finds one thing to do for each timer', async (t) => {
  const scene = Scene.allocated();
  scene.agent.channelTo(PEER, scene.now);
  scene.run(SECOND);
  scene.takeEvents();
  scene.takeSent();
  scene.sleep(3 * 60 * MINUTE);
  scene.timeout();
  t.same(scene.takeEvents(), [{ type: 'failed', why: 'no-response' }]);

  const waiting = new Scene({}, deaf());
  waiting.sleep(4 * SECOND);
  waiting.timeout();
  t.equal(waiting.sent.length, 2, 'one repetition for those that were missed');
});

await t.test('told of the time only each 100 ms, it does the same a little later', async (t) => {
  const traces = [undefined, 100].map((tick) => {
    const scene = new Scene();
    scene.tick = tick;
    scene.run(SECOND);
    scene.agent.channelTo(PEER, scene.now);
    for (let i = 0; i < 60; i++) {
      scene.run(20 * SECOND);
      if (i < 30) scene.agent.handleTraffic(0x4000, scene.now);
    }
    return methods(scene.sent);
  });
  t.same(traces[0], traces[1]);
  t.ok(traces[0]!.includes('channel-bind') && traces[0]!.includes('refresh'));
});

await t.test('what is queued is due', async (t) => {
  const scene = Scene.allocated();
  scene.agent.refresh(scene.now);
  t.same(scene.agent.pollTimeout(), { at: scene.now, reason: 'queued' });
  t.same(scene.agent.pollTimeout(), { at: scene.now, reason: 'queued' }, 'asking changes nothing');
  scene.settle();
  t.ok(scene.agent.pollTimeout()!.at > scene.now);
  scene.agent.handleTimeout(instantAt(scene.now + 1));
  t.equal(scene.agent.pollTransmit(), undefined, 'too early is nothing');
});

function idsOf({ sent }: Scene): ReadonlySet<string> {
  return new Set(sent.map(({ request }) => encodeHex(request.transactionId)));
}

/** Lets the first request be challenged and gives the others to `script`. */
function onceAuthenticated(script: Script): Script {
  return (request) => (request.hasIntegrity ? script(request) : undefined);
}

/** A server that does nothing but what the script says. */
function deaf(script: Script = () => 'silence'): TurnServer {
  const server = new TurnServer();
  server.script = script;
  return server;
}

function dataIndication(peer: SocketAddress, data: Uint8Array): Uint8Array {
  return encodeStun(
    {
      class: 'indication',
      method: 'data',
      transactionId: new Uint8Array(12),
      attributes: { xorPeerAddresses: [peer], data },
    },
    { crypto },
  );
}

/** FINGERPRINT is the last attribute, of 8 bytes. */
function withoutFingerprint(message: Uint8Array): Uint8Array {
  const shorter = message.slice(0, -8);
  shorter[3]! -= 8;
  return shorter;
}
