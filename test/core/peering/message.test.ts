import fc from 'fast-check';
import t from 'tap';
import {
  decodePeering,
  encodePeering,
  LONGEST_PEERING,
  type PeeringMessage,
} from '../../../core/peering/message.ts';
import { encodeHex } from '../../../core/sansio/hex.ts';

await t.test('a message is its type, seven zeros and JSON', async (t) => {
  const goodbye = encodePeering({ type: 'goodbye', reason: 'leaving' });
  t.equal(encodeHex(goodbye.subarray(0, 8)), '0200000000000000');
  t.equal(new TextDecoder().decode(goodbye.subarray(8)), '{"reason":"leaving"}');
  const report = encodePeering({ type: 'path-report', kind: 'relayed', rttMs: 12.5 });
  t.equal(report[0], 3);
  t.equal(new TextDecoder().decode(report.subarray(8)), '{"kind":"relayed","rttMs":12.5}');
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
  for (const type of [0, 1, 4, 255]) {
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
    fc.property(fc.json({ maxDepth: 30 }), fc.integer({ min: 2, max: 3 }), (json, type) => {
      decodePeering(datagram(type, json));
    }),
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

function messages(): fc.Arbitrary<PeeringMessage> {
  const rttMs = fc.double({ min: 0, max: 1e6, noNaN: true }).map((ms) => ms + 0);
  return fc.oneof(
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
