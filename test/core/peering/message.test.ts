import fc from 'fast-check';
import t from 'tap';
import {
  decodePeering,
  encodePeering,
  LONGEST_PEERING,
  type PeeringMessage,
} from '../../../core/peering/message.ts';
import { parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';
import { encodeHex } from '../../../core/sansio/hex.ts';

const LONGEST_IPV4: readonly IpAddress[] = [1, 2, 3, 4].map((i) => ip(`100.127.255.10${i}`));
const LONGEST_IPV6: readonly IpAddress[] = [1, 2, 3, 4].map((i) =>
  ip(`fd12:3456:789a:bcde:f123:4567:89ab:cde${i}`),
);

await t.test('a message is its type, seven zeros and JSON', async (t) => {
  const goodbye = encodePeering({ type: 'goodbye', reason: 'leaving' });
  t.equal(encodeHex(goodbye.subarray(0, 8)), '0200000000000000');
  t.equal(new TextDecoder().decode(goodbye.subarray(8)), '{"reason":"leaving"}');
  const report = encodePeering({ type: 'path-report', kind: 'relayed', rttMs: 12.5 });
  t.equal(report[0], 3);
  t.equal(new TextDecoder().decode(report.subarray(8)), '{"kind":"relayed","rttMs":12.5}');
  const assigned = encodePeering({
    type: 'assigned-ips',
    resource: 'crm',
    domain: 'crm.corp.example',
    proxyIps: [ip('100.96.0.4'), ip('fd00::4')],
  });
  t.equal(encodeHex(assigned.subarray(0, 8)), '0000000000000000');
  t.equal(
    new TextDecoder().decode(assigned.subarray(8)),
    '{"resource":"crm","domain":"crm.corp.example","proxyIps":["100.96.0.4","fd00::4"]}',
  );
  const status = encodePeering({
    type: 'domain-status',
    resource: 'crm',
    domain: 'crm.corp.example',
    status: 'active',
  });
  t.equal(status[0], 1);
  t.equal(
    new TextDecoder().decode(status.subarray(8)),
    '{"resource":"crm","domain":"crm.corp.example","status":"active"}',
  );
});

await t.test('the longest name with all its proxies fits into a message', async (t) => {
  const domain = [63, 63, 63, 61].map((length) => 'x'.repeat(length)).join('.');
  t.equal(domain.length, 253);
  const longest = encodePeering({
    type: 'assigned-ips',
    resource: 'r'.repeat(64),
    domain,
    proxyIps: [...LONGEST_IPV4, ...LONGEST_IPV6],
  });
  t.ok(longest.length <= LONGEST_PEERING, `${longest.length} bytes`);
  t.ok(decodePeering(longest).ok);
});

await t.test('a name of a newer or careless peer is read in canonical text', async (t) => {
  t.strictSame(
    decodePeering(
      datagram(
        0,
        '{"resource":"crm","domain":"CRM.Corp.Example.","proxyIps":["FD00:0::4","100.96.0.4"]}',
      ),
    ),
    {
      ok: true,
      value: {
        type: 'assigned-ips',
        resource: 'crm',
        domain: 'crm.corp.example',
        proxyIps: ['fd00::4', '100.96.0.4'],
      },
    },
  );
});

await t.test('a status that only a newer gateway knows is read as refused', async (t) => {
  t.match(decodePeering(datagram(1, '{"resource":"crm","domain":"a.b","status":"busy"}')), {
    ok: true,
    value: { type: 'domain-status', status: 'refused' },
  });
});

await t.test('every message is read as it was written', async (t) => {
  fc.assert(
    fc.property(messages(), (message) => {
      const datagram = encodePeering(message);
      return (
        datagram.length <= LONGEST_PEERING &&
        JSON.stringify(decodePeering(datagram)) === JSON.stringify({ ok: true, value: message })
      );
    }),
  );
  t.pass();
});

await t.test('members of a newer peer are ignored', async (t) => {
  t.strictSame(decodePeering(datagram(2, '{"why":[1],"reason":"revoked","__proto__":{}}')), {
    ok: true,
    value: { type: 'goodbye', reason: 'revoked' },
  });
});

await t.test('types of a newer peer are told from malformed messages', async (t) => {
  for (const type of [4, 255]) {
    t.match(decodePeering(datagram(type, '{}')), { ok: false, why: 'unknown-type' });
    t.match(decodePeering(datagram(type, 'not JSON')), { ok: false, why: 'unknown-type' });
  }
});

await t.test('a malformed message is refused', async (t) => {
  const refused = {
    empty: new Uint8Array(),
    'shorter than the header': Uint8Array.of(2, 0, 0, 0, 0, 0, 0),
    'without JSON': datagram(2, ''),
    'not an object': datagram(2, '"leaving"'),
    null: datagram(2, 'null'),
    'a list': datagram(2, '["leaving"]'),
    'no reason': datagram(2, '{}'),
    'an unknown reason': datagram(2, '{"reason":"tired"}'),
    'a reason by another name': datagram(2, '{"__proto__":{"reason":"leaving"}}'),
    'something behind it': datagram(2, '{"reason":"leaving"}x'),
    'an unknown kind': datagram(3, '{"kind":"pigeon"}'),
    'a time that is none': datagram(3, '{"kind":"direct","rttMs":"3"}'),
    'a negative time': datagram(3, '{"kind":"direct","rttMs":-1}'),
    'an endless time': datagram(3, '{"kind":"direct","rttMs":1e999}'),
    'a header that is not zero': datagram(2, '{"reason":"leaving"}').with(7, 1),
    'bytes that are not UTF-8': datagram(2, '{"reason":"leaving","x":"?"}').with(33, 0xff),
    ...refusedAssignments(),
    'a status that is no text': datagram(1, '{"resource":"crm","domain":"a.b","status":1}'),
    'no status': datagram(1, '{"resource":"crm","domain":"a.b"}'),
    'a status of no resource': datagram(1, '{"domain":"a.b","status":"active"}'),
    'a status of no domain': datagram(1, '{"resource":"crm","status":"active"}'),
    'longer than 1200 bytes': datagram(2, `{"reason":"leaving"}${' '.repeat(1173)}`),
  };
  for (const [why, bytes] of Object.entries(refused)) {
    t.match(decodePeering(bytes), { ok: false, why: 'malformed' }, why);
  }
  const longest = datagram(2, `{"reason":"leaving"}${' '.repeat(1172)}`);
  t.match(decodePeering(longest), { ok: true });
});

await t.test('arbitrary and changed bytes are never an exception', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1400 }), fc.nat(4), (bytes, type) => {
      decodePeering(bytes);
      const typed = Uint8Array.from([type, 0, 0, 0, 0, 0, 0, 0, ...bytes]);
      const outcome = decodePeering(typed);
      return outcome.ok || ['malformed', 'unknown-type'].includes(outcome.why);
    }),
  );
  fc.assert(
    fc.property(fc.json({ maxDepth: 30 }), fc.nat(3), (json, type) => {
      decodePeering(datagram(type, json));
    }),
  );
  fc.assert(
    fc.property(fc.nat(1), oddMembers(), (type, members) => {
      const outcome = decodePeering(datagram(type, JSON.stringify(members)));
      // What is read can be written, and reads as the same again.
      return !outcome.ok || JSON.stringify(reread(outcome.value)) === JSON.stringify(outcome);
    }),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(messages(), fc.nat(), fc.nat(255), (message, at, byte) => {
      const bytes = encodePeering(message);
      decodePeering(bytes.with(at % bytes.length, byte));
      decodePeering(bytes.subarray(0, at % bytes.length));
    }),
  );
  t.doesNotThrow(() => decodePeering(datagram(2, '['.repeat(1192))), 'nested as deep as it gets');
});

function refusedAssignments(): Record<string, Uint8Array> {
  const assignment = (members: object) =>
    datagram(
      0,
      JSON.stringify({ resource: 'crm', domain: 'a.b', proxyIps: ['100.96.0.1'], ...members }),
    );
  return {
    'no resource': assignment({ resource: undefined }),
    'a resource that is a number': assignment({ resource: 1 }),
    'a resource without a name': assignment({ resource: '' }),
    'a resource with a name too long': assignment({ resource: 'r'.repeat(65) }),
    'a resource with a space': assignment({ resource: 'c rm' }),
    'no domain': assignment({ domain: undefined }),
    'an empty domain': assignment({ domain: '' }),
    'an empty label': assignment({ domain: 'a..b' }),
    'a label too long': assignment({ domain: `${'x'.repeat(64)}.b` }),
    'a name too long': assignment({ domain: 'x.'.repeat(128) }),
    'a domain in letters of others': assignment({ domain: 'bücher.example' }),
    'no list': assignment({ proxyIps: '100.96.0.1' }),
    'a list by another name': assignment({ proxyIps: { length: 1, 0: '100.96.0.1' } }),
    'no address': assignment({ proxyIps: [] }),
    'an address that is none': assignment({ proxyIps: ['100.96.0.256'] }),
    'a prefix': assignment({ proxyIps: ['100.96.0.0/32'] }),
    'an address that is a number': assignment({ proxyIps: [1681915905] }),
    'an address twice': assignment({ proxyIps: ['fd00::1', 'fd00:0::1'] }),
    'five of IPv4': assignment({ proxyIps: [...LONGEST_IPV4, '100.96.0.1'] }),
    'five of IPv6': assignment({ proxyIps: [...LONGEST_IPV6, 'fd00::1'] }),
  };
}

function reread(message: PeeringMessage) {
  return decodePeering(encodePeering(message));
}

/** Members that are right, nearly right, or of another kind. */
function oddMembers(): fc.Arbitrary<object> {
  const some = <T>(right: fc.Arbitrary<T>) =>
    fc.oneof({ weight: 6, arbitrary: right }, fc.string(), fc.jsonValue({ maxDepth: 2 }));
  return fc.record(
    {
      resource: some(fc.stringMatching(/^[\w.-]{1,66}$/)),
      domain: some(fc.stringMatching(/^[\w.\\ -]{1,80}$/)),
      proxyIps: some(fc.array(some(fc.oneof(fc.ipV4(), fc.ipV6())), { maxLength: 9 })),
      status: some(fc.constantFrom('active', 'refused', 'not-resolved')),
    },
    { requiredKeys: [] },
  );
}

function messages(): fc.Arbitrary<PeeringMessage> {
  const name = {
    resource: fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/),
    domain: fc
      .array(fc.stringMatching(/^[a-z0-9_-]{1,63}$/), { minLength: 1, maxLength: 3 })
      .map((labels) => labels.join('.')),
  };
  const addresses = (text: fc.Arbitrary<string>) =>
    fc.uniqueArray(text.map(ip), { maxLength: 4, minLength: 1 });
  const rttMs = fc.double({ min: 0, max: 1e6, noNaN: true }).map((ms) => ms + 0);
  return fc.oneof(
    fc.record({
      type: fc.constant('assigned-ips' as const),
      ...name,
      proxyIps: fc
        .tuple(addresses(fc.ipV4()), addresses(fc.ipV6()))
        .map((families) => families.flat()),
    }),
    fc.record({
      type: fc.constant('domain-status' as const),
      ...name,
      status: fc.constantFrom('active' as const, 'refused' as const, 'not-resolved' as const),
    }),
    fc.record({
      type: fc.constant('goodbye' as const),
      reason: fc.constantFrom('leaving' as const, 'restarting' as const, 'revoked' as const),
    }),
    fc.record(
      {
        type: fc.constant('path-report' as const),
        kind: fc.constantFrom('direct' as const, 'relayed' as const, 'stream' as const),
        rttMs,
      },
      { requiredKeys: ['type', 'kind'] },
    ),
  );
}

function datagram(type: number, json: string): Uint8Array {
  return Uint8Array.from([type, 0, 0, 0, 0, 0, 0, 0, ...new TextEncoder().encode(json)]);
}

function ip(text: string): IpAddress {
  const address = parseIpAddress(text);
  if (!address.ok) throw new Error(text);
  return address.value;
}
