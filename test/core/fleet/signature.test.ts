import fc from 'fast-check';
import t from 'tap';
import { openPublication, signPublication } from '../../../core/fleet/device-signature.ts';
import {
  MAX_ENVELOPE_BYTES,
  operatorKeyId,
  signEnvelope,
  verifyEnvelope,
} from '../../../core/fleet/envelope.ts';
import { DeviceObserver } from '../../../core/fleet/operator.ts';
import { formatTopic, parseTopic, topicFilter } from '../../../core/fleet/topics.ts';
import { decodeBase64, encodeBase64 } from '../../../core/sansio/base64.ts';
import { encodeHex } from '../../../core/sansio/hex.ts';
import { decodeUtf8, encodeUtf8 } from '../../../core/sansio/utf8.ts';
import { createNodeCrypto } from '../../../plugins/crypto-node/index.ts';
import {
  UNIX_MS,
  crypto,
  device,
  deviceKey,
  devicePublicKey,
  envelope,
  fleet,
  nameOf,
  operatorKey,
  operatorPublicKey,
} from './fleet-scene.ts';

const expected = {
  fleet,
  device,
  operatorKeys: [operatorPublicKey],
  version: 0,
  current: undefined,
  unixMs: UNIX_MS,
};
const TOPIC = 'culvert/1/acme/r1/reported';

await t.test('the signed bytes are a fixed prefix and the body, as any Ed25519 verifies', (t) => {
  const { body, key, signature } = JSON.parse(decodeUtf8(envelope(1))!) as Record<string, string>;
  const signed = [...encodeUtf8('culvert/1 desired state\0'), ...decodeBase64(body!)!];
  const node = createNodeCrypto(crypto);
  t.ok(node.ed25519.verify(operatorPublicKey, Uint8Array.from(signed), decodeBase64(signature!)!));
  t.equal(key, encodeHex(crypto.sha256(operatorPublicKey)).slice(0, 16));
  t.equal(key, operatorKeyId(operatorPublicKey, crypto));
  t.match(JSON.parse(decodeUtf8(decodeBase64(body!)!)!), { schema: 1, fleet, device, version: 1 });
  t.end();
});

await t.test('any of the pinned operator keys will do', (t) => {
  const second = new Uint8Array(32).fill(8);
  const operatorKeys = [operatorPublicKey, crypto.ed25519.publicKey(second)];
  t.ok(verifyEnvelope(envelope(1, {}, second), { ...expected, operatorKeys }, crypto).ok);
  t.notOk(verifyEnvelope(envelope(1, {}, second), expected, crypto).ok);
  t.end();
});

await t.test('a signature over something else is none over a desired state', (t) => {
  const body = encodeUtf8('{}');
  const forged = {
    body: encodeBase64(body),
    key: operatorKeyId(operatorPublicKey, crypto),
    signature: encodeBase64(crypto.ed25519.sign(operatorKey, body)),
  };
  t.match(verifyEnvelope(encodeUtf8(JSON.stringify(forged)), expected, crypto), {
    ok: false,
    why: 'bad-signature',
  });
  t.end();
});

await t.test('a signed body that is no desired state is malformed', (t) => {
  for (const body of ['', '{}', '[]', 'null', '{"schema":2}', '\u00ff', '{"schema":1,"extra":1}']) {
    const message = signEnvelope(encodeUtf8(body), operatorKey, crypto);
    t.match(verifyEnvelope(message, expected, crypto), { ok: false, why: 'malformed' }, body);
  }
  const version = (version: unknown): Uint8Array => {
    const body = { schema: 1, fleet, device, version, configuration: {} };
    return signEnvelope(encodeUtf8(JSON.stringify(body)), operatorKey, crypto);
  };
  for (const bad of [0, -1, 1.5, 2 ** 53, '1', null]) {
    t.match(verifyEnvelope(version(bad), expected, crypto), { why: 'malformed' }, String(bad));
  }
  t.end();
});

await t.test('limits: one byte more than the largest envelope is not even read', (t) => {
  const large = new Uint8Array(MAX_ENVELOPE_BYTES + 1).fill(0x7b);
  t.match(verifyEnvelope(large, expected, crypto), { ok: false, why: 'too-large' });
  t.match(verifyEnvelope(large.subarray(1), expected, crypto), { ok: false, why: 'malformed' });
  t.end();
});

await t.test('time limits hold to the second', (t) => {
  const at = (change: object, unixMs: number | undefined): string => {
    const verified = verifyEnvelope(envelope(1, change), { ...expected, unixMs }, crypto);
    return verified.ok ? 'taken' : verified.why;
  };
  const limits = { notBefore: 2_000_000_000, notAfter: 2_000_000_010 };
  t.equal(at(limits, 1_999_999_999_999), 'not-yet-valid');
  t.equal(at(limits, 2_000_000_000_000), 'taken');
  t.equal(at(limits, 2_000_000_010_000), 'taken');
  t.equal(at(limits, 2_000_000_010_001), 'expired');
  t.equal(at(limits, undefined), 'clock-unknown');
  t.equal(at({}, undefined), 'taken');
  t.end();
});

await t.test(
  'truncated, flipped, spliced and random envelopes are refused, never thrown at',
  () => {
    const good = envelope(3, { notAfter: UNIX_MS / 1000 + 60 });
    const text = decodeUtf8(good)!;
    for (let length = 0; length < good.length; length++) {
      refused(good.subarray(0, length));
    }
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const message = good.slice();
        message[at] = (message[at] ?? 0) ^ flip;
        // White space between tokens is the only freedom that JSON leaves; there is none in ours.
        return refused(message);
      }),
      { numRuns: 300 },
    );
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), refused), { numRuns: 300 });
    fc.assert(
      fc.property(fc.jsonValue(), (value) => refused(encodeUtf8(JSON.stringify(value)))),
      { numRuns: 200 },
    );
    fc.assert(
      fc.property(fc.nat(text.length), fc.string({ minLength: 1, maxLength: 8 }), (at, more) => {
        const spliced = text.slice(0, at) + more + text.slice(at);
        const outer = (): unknown => JSON.parse(spliced);
        try {
          // Space around tokens gives the same document.
          if (JSON.stringify(outer()) === text) return true;
        } catch {
          // Not JSON at all.
        }
        return refused(encodeUtf8(spliced));
      }),
      { numRuns: 300 },
    );

    function refused(message: Uint8Array): boolean {
      if (verifyEnvelope(message, expected, crypto).ok) throw new Error(decodeUtf8(message));
      return true;
    }
    return Promise.resolve();
  },
);

await t.test('what a device says is readable JSON, and exact', (t) => {
  const payload = { phase: 'applied', text: 'Zürich "\ud83d\ude00" \ud800' };
  const message = publication(TOPIC, payload, 7, 3);
  const read = JSON.parse(decodeUtf8(message)!) as Record<string, unknown>;
  t.match(read, { boot: 7, seq: 3, payload: { phase: 'applied' } }, 'as jq .payload shows it');
  const opened = openPublication(TOPIC, message, devicePublicKey, crypto);
  t.match(opened, { ok: true, value: { boot: 7, seq: 3, payload: { phase: 'applied' } } });
  const why = (topic: string, bytes: Uint8Array): string => {
    const result = openPublication(topic, bytes, devicePublicKey, crypto);
    return result.ok ? 'verified' : result.why;
  };
  t.equal(why(TOPIC.replace('r1', 'r2'), message), 'bad-signature', 'another device’s topic');
  t.equal(why(TOPIC.replace('reported', 'state'), message), 'bad-signature', 'another topic');
  t.equal(why(TOPIC, changed(message, '"seq":3', '"seq":4')), 'bad-signature');
  t.equal(why(TOPIC, changed(message, '"boot":7', '"boot":8')), 'bad-signature');
  t.equal(why(TOPIC, changed(message, 'applied', 'refused')), 'bad-signature');
  t.equal(why(TOPIC, changed(message, '{"phase"', '{ "phase"')), 'bad-signature', 'byte for byte');
  t.equal(why(TOPIC, changed(message, '"seq":3', '"seq":03')), 'malformed', 'one form only');
  t.equal(why(TOPIC, changed(message, '"seq":3', '"seq":3,"seq":4')), 'malformed');
  t.equal(why(TOPIC, changed(message, '"boot":7', '"boot":9007199254740993')), 'malformed');
  t.equal(why(TOPIC, new Uint8Array(600_000)), 'too-large');
  t.end();
});

await t.test('a second payload cannot hide behind the one that is signed', (t) => {
  const payload = JSON.stringify({ a: 1, inner: ',"boot":1,"seq":2,"signature":"x"}' });
  const message = publication(TOPIC, JSON.parse(payload) as object, 1, 1);
  t.ok(openPublication(TOPIC, message, devicePublicKey, crypto).ok);
  const twice = changed(message, '{"payload":{', '{"payload":{"a":2},"payload":{');
  t.notOk(openPublication(TOPIC, twice, devicePublicKey, crypto).ok);
  t.notOk(openPublication(TOPIC, twice, undefined, crypto).ok);
  t.end();
});

await t.test('random publications are read or refused, never thrown at', () => {
  const good = publication(TOPIC, { state: 'ready' }, 1, 1);
  for (let length = 0; length < good.length; length++) {
    if (openPublication(TOPIC, good.subarray(0, length), undefined, crypto).ok) {
      throw new Error(`cut at ${length}`);
    }
  }
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const message = good.slice();
      message[at] = (message[at] ?? 0) ^ flip;
      return !openPublication(TOPIC, message, devicePublicKey, crypto).ok;
    }),
    { numRuns: 300 },
  );
  return Promise.resolve();
});

await t.test('the operator tells the new from the old', (t) => {
  const observer = new DeviceObserver(fleet, new Map([[device, devicePublicKey]]), crypto);
  const see = (kind: string, payload: object, boot: number, seq: number): string => {
    const topic = `culvert/1/acme/r1/${kind}`;
    const observed = observer.handleMessage(topic, publication(topic, payload, boot, seq));
    return observed.type === 'published' ? 'new' : observed.why;
  };
  const ready = { state: 'ready', session: 'a', software: '1' };
  t.equal(see('presence', ready, 1, 2), 'new');
  t.equal(see('presence', ready, 1, 2), 'repeated', 'a retained message with a new subscription');
  t.equal(see('reported', { phase: 'none' }, 1, 3), 'new');
  t.equal(see('reported', { phase: 'applied' }, 1, 5), 'new');
  t.equal(see('reported', { phase: 'none' }, 1, 3), 'replayed');
  t.equal(see('presence', { ...ready, state: 'lost' }, 1, 1), 'new', 'a will is signed before');
  t.equal(see('presence', ready, 1, 2), 'repeated', 'what it ended does not come back');
  t.equal(see('presence', { ...ready, session: 'b' }, 1, 7), 'new');
  t.equal(see('presence', { ...ready, state: 'lost' }, 1, 1), 'replayed', 'a will of session a');
  t.equal(see('state', { peers: [] }, 2, 1), 'new', 'the device started again');
  t.equal(see('reported', { phase: 'applied' }, 1, 99), 'replayed', 'of the boot before');
  t.equal(see('presence', { ...ready, session: 'b', state: 'lost' }, 1, 6), 'replayed');
  t.equal(see('presence', { ...ready, session: 'c' }, 2, 2), 'new');

  const other = 'culvert/1/acme/r2/state';
  const unpinned = observer.handleMessage(other, publication(other, {}, 1, 1));
  t.match(unpinned, { type: 'published', isVerified: false });
  t.match(observer.handleMessage('culvert/1/evil/r1/state', new Uint8Array(1)), {
    why: 'other-topic',
  });
  t.match(observer.handleMessage(TOPIC, new Uint8Array()), { why: 'empty' });
  t.end();
});

await t.test('topics hold names and nothing that a broker reads as more', (t) => {
  t.equal(formatTopic({ fleet, device, kind: 'desired' }), 'culvert/1/acme/r1/desired');
  t.equal(topicFilter(fleet, undefined, 'state'), 'culvert/1/acme/+/state');
  t.same(parseTopic('culvert/1/acme/r1/desired'), { fleet, device, kind: 'desired' });
  const bad = ['', 'culvert/1/acme/r1', 'culvert/2/acme/r1/state', 'culvert/1/acme/r1/state/x'];
  const names = ['+', '#', '', 'a\0', '_enroll', 'ü', 'a b', 'x'.repeat(65)];
  for (const topic of [...bad, ...names.map((name) => `culvert/1/acme/${name}/state`)]) {
    t.equal(parseTopic(topic), undefined, JSON.stringify(topic));
  }
  t.throws(() => nameOf('a/b'));
  t.end();
});

function publication(topic: string, payload: object, boot: number, seq: number): Uint8Array {
  return signPublication(payload, { topic, boot, seq }, deviceKey, crypto);
}

function changed(message: Uint8Array, from: string, to: string): Uint8Array {
  const text = decodeUtf8(message)!;
  if (!text.includes(from)) throw new Error(`no ${from} in ${text}`);
  return encodeUtf8(text.replace(from, to));
}
