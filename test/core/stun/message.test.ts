import fc from 'fast-check';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { parseIpAddress, ipAddressFromBytes } from '../../../core/net/ip-address.ts';
import { socketAddress, type SocketAddress } from '../../../core/net/socket-address.ts';
import { decodeHex, encodeHex } from '../../../core/sansio/hex.ts';
import { encodeUtf8 } from '../../../core/sansio/utf8.ts';
import { fingerprint } from '../../../core/stun/fingerprint.ts';
import {
  decodeStun,
  encodeStun,
  isStun,
  type ReceivedStun,
  type StunAttributes,
  type StunClass,
  type StunMessage,
  type StunMethod,
} from '../../../core/stun/message.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';

const crypto = createNobleCrypto();

interface Vector {
  readonly section: string;
  readonly password: string;
  readonly message: string;
}
const vectors = JSON.parse(readFileSync('test/vectors/stun.json', 'utf8')) as readonly Vector[];

const TRANSACTION_ID = fromHex('b7e7a701bc34d686fa87dfae');
const KEY = encodeUtf8('VOkJxbRl1RmTxUk/WvJxBt');

const anyAddress = fc
  .tuple(fc.oneof(bytesOf(4, 4), bytesOf(16, 16)), fc.nat(65_535))
  .map(([ip, port]) => socketAddress(canonical(ip), port));
const anyText = fc.string({ unit: 'grapheme', maxLength: 20 });
const anyError = fc.record({ code: fc.integer({ min: 300, max: 699 }), reason: anyText });
const anyFamily = fc.constantFrom<4 | 6>(4, 6);
const anyUint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const anyAttributes: fc.Arbitrary<StunAttributes> = fc.record(
  {
    mappedAddress: anyAddress,
    xorMappedAddress: anyAddress,
    username: anyText,
    realm: anyText,
    nonce: anyText,
    software: anyText,
    errorCode: anyError,
    unknownAttributes: fc.array(fc.nat(65_535), { maxLength: 5 }),
    alternateServer: anyAddress,
    priority: anyUint32,
    useCandidate: fc.constant(true as const),
    iceControlled: bytesOf(8, 8),
    iceControlling: bytesOf(8, 8),
    channelNumber: fc.nat(65_535),
    lifetime: anyUint32,
    xorPeerAddresses: fc.array(anyAddress, { minLength: 1, maxLength: 4 }),
    xorRelayedAddresses: fc.array(anyAddress, { minLength: 1, maxLength: 2 }),
    requestedTransport: fc.nat(255),
    requestedAddressFamily: anyFamily,
    additionalAddressFamily: anyFamily,
    draftAdditionalAddressFamily: anyFamily,
    addressErrorCode: fc
      .tuple(anyError, anyFamily)
      .map(([error, family]) => ({ family, ...error })),
    data: bytesOf(0, 1500),
    dontFragment: fc.constant(true as const),
  },
  { requiredKeys: [], noNullPrototype: true },
);
const anyMessage: fc.Arbitrary<StunMessage> = fc.record(
  {
    class: fc.constantFrom<StunClass>('request', 'indication', 'success', 'error'),
    method: fc.constantFrom<StunMethod>('binding', 'allocate', 'refresh', 'send', 'data'),
    transactionId: bytesOf(12, 12),
    attributes: anyAttributes,
  },
  { noNullPrototype: true },
);

await t.test('RFC 5769 §2.1: a request with short-term credentials', (t) => {
  const message = decoded(vectorOf('2.1'));
  t.equal(message.class, 'request');
  t.equal(message.method, 'binding');
  t.same(encodeHex(message.transactionId), encodeHex(TRANSACTION_ID));
  t.same(message.attributes, {
    software: 'STUN test client',
    priority: 0x6e00_01ff,
    iceControlled: fromHex('932ff9b151263b36'),
    username: 'evtj:h6vY',
  });
  t.same(message.unknownRequired, []);
  t.ok(message.hasValidIntegrity(KEY, crypto));
  t.notOk(message.hasValidIntegrity(encodeUtf8('another password'), crypto));
  t.end();
});

await t.test('RFC 5769 §2.2 and §2.3: responses with an address of either family', (t) => {
  const cases = [
    ['2.2', '192.0.2.1:32853'],
    ['2.3', '[2001:db8:1234:5678:11:2233:4455:6677]:32853'],
  ] as const;
  for (const [section, xorMappedAddress] of cases) {
    const message = decoded(vectorOf(section));
    t.equal(message.class, 'success');
    t.same(message.attributes, { software: 'test vector', xorMappedAddress });
    t.ok(message.hasValidIntegrity(KEY, crypto), section);
  }
  t.end();
});

await t.test('RFC 5769 §2.4: a request with long-term credentials', (t) => {
  const message = decoded(vectorOf('2.4'));
  const { username, realm, nonce } = message.attributes;
  t.equal(username, 'マトリックス');
  t.equal(realm, 'example.org');
  t.equal(nonce, 'f//499k954d6OL34oL9FSTvy64sA');
  const key = crypto.md5(encodeUtf8(`${username}:${realm}:TheMatrIX`));
  t.ok(message.hasValidIntegrity(key, crypto));
  t.end();
});

await t.test('what is written of a vector differs from it in padding and order alone', (t) => {
  for (const { section, message } of vectors) {
    const { class: of, method, transactionId, attributes } = decoded(fromHex(message));
    const bytes = encodeStun({ class: of, method, transactionId, attributes }, { crypto });
    t.same(decoded(bytes).attributes, attributes, section);
  }
  t.end();
});

await t.test('methods and classes have the types of the RFCs', (t) => {
  const types: readonly (readonly [StunMethod, StunClass, number])[] = [
    ['binding', 'request', 0x0001],
    ['binding', 'indication', 0x0011],
    ['binding', 'success', 0x0101],
    ['binding', 'error', 0x0111],
    ['allocate', 'request', 0x0003],
    ['allocate', 'error', 0x0113],
    ['refresh', 'success', 0x0104],
    ['send', 'indication', 0x0016],
    ['data', 'indication', 0x0017],
    ['create-permission', 'request', 0x0008],
    ['channel-bind', 'success', 0x0109],
  ];
  for (const [method, of, type] of types) {
    const bytes = encodeStun(
      { class: of, method, transactionId: TRANSACTION_ID, attributes: {} },
      { crypto },
    );
    t.equal(encodeHex(bytes.subarray(0, 2)), type.toString(16).padStart(4, '0'));
    const { class: readClass, method: readMethod } = decoded(bytes);
    t.same([readMethod, readClass], [method, of]);
  }
  t.notOk(decodeStun(withFingerprint('0002', '')).ok, 'a method of another usage');
  t.end();
});

await t.test('attributes have the numbers and forms of the RFCs', (t) => {
  const rows: readonly (readonly [StunAttributes, string])[] = [
    [{ mappedAddress: '192.0.2.1:32853' as SocketAddress }, '0001000800018055c0000201'],
    [{ username: 'abc' }, '0006000361626300'],
    [
      { errorCode: { code: 438, reason: 'Stale Nonce' } },
      '0009000f000004265374616c65204e6f6e636500',
    ],
    [{ unknownAttributes: [0x7fff, 3, 4] }, '000a00067fff000300040000'],
    [{ channelNumber: 0x4000 }, '000c000440000000'],
    [{ lifetime: 600 }, '000d000400000258'],
    [{ xorPeerAddresses: ['192.0.2.1:32853' as SocketAddress] }, '001200080001a147e112a643'],
    [{ data: Uint8Array.of(1, 2, 3, 4, 5) }, '001300050102030405000000'],
    [{ realm: 'r' }, '0014000172000000'],
    [{ nonce: 'n' }, '001500016e000000'],
    [{ xorRelayedAddresses: ['192.0.2.1:32853' as SocketAddress] }, '001600080001a147e112a643'],
    [{ requestedAddressFamily: 6 }, '0017000402000000'],
    [{ requestedTransport: 17 }, '0019000411000000'],
    [{ dontFragment: true }, '001a0000'],
    [{ xorMappedAddress: '192.0.2.1:32853' as SocketAddress }, '002000080001a147e112a643'],
    [{ priority: 0xffff_ffff }, '00240004ffffffff'],
    [{ useCandidate: true }, '00250000'],
    [{ additionalAddressFamily: 6 }, '8000000402000000'],
    [{ draftAdditionalAddressFamily: 6 }, '8032000402000000'],
    [{ addressErrorCode: { family: 6, code: 440, reason: '' } }, '8001000402000428'],
    [{ software: 'culvert' }, '8022000763756c7665727400'],
    [{ alternateServer: '192.0.2.1:3478' as SocketAddress }, '8023000800010d96c0000201'],
    [{ iceControlled: new Uint8Array(8).fill(1) }, '802900080101010101010101'],
    [{ iceControlling: new Uint8Array(8).fill(2) }, '802a00080202020202020202'],
  ];
  for (const [attributes, hex] of rows) {
    const bytes = encodeStun(request(attributes), { crypto });
    t.equal(encodeHex(bytes.subarray(20, -8)), hex);
    t.same(decoded(bytes).attributes, attributes);
  }
  t.end();
});

await t.test('FINGERPRINT is last, behind MESSAGE-INTEGRITY', (t) => {
  const bytes = encodeStun(request({ username: 'a:b' }), { integrityKey: KEY, crypto });
  t.equal(encodeHex(bytes.subarray(-8, -4)), '80280004');
  t.equal(encodeHex(bytes.subarray(-32, -28)), '00080014');
  t.ok(decoded(bytes).hasValidIntegrity(KEY, crypto));
  const bare = decoded(encodeStun(request({}), { crypto }));
  t.notOk(bare.hasIntegrity);
  t.notOk(bare.hasValidIntegrity(KEY, crypto));
  t.end();
});

await t.test('a message whose FINGERPRINT does not hold, or is not last, is none', (t) => {
  const bytes = encodeStun(request({ priority: 1 }), { crypto });
  t.ok(decodeStun(bytes).ok);
  for (let at = 0; at < bytes.length; at++) {
    // Its own type is the exception: with another one it is another attribute.
    const isType = at === bytes.length - 8 || at === bytes.length - 7;
    t.equal(decodeStun(flipped(bytes, at)).ok, isType, `byte ${at}`);
  }
  const early = withFingerprint('0001', '');
  t.notOk(decodeStun(message('0001', `${encodeHex(early.subarray(20))}00250000`)).ok);
  t.notOk(decodeStun(message('0001', '80280000')).ok, 'an empty one');
  t.ok(decodeStun(message('0001', '')).ok, 'one without it is read');
  t.end();
});

await t.test('a byte changed anywhere before MESSAGE-INTEGRITY, or in it, is noticed', (t) => {
  const whole = encodeStun(request({ username: 'evtj:h6vY', priority: 7 }), {
    integrityKey: KEY,
    crypto,
  });
  const bytes = message('0001', encodeHex(whole.subarray(20, -8)));
  t.ok(decoded(bytes).hasValidIntegrity(KEY, crypto));
  for (let at = 0; at < bytes.length; at++) {
    const outcome = decodeStun(flipped(bytes, at));
    t.notOk(outcome.ok && outcome.value.hasValidIntegrity(KEY, crypto), `byte ${at}`);
  }
  t.end();
});

await t.test('what stands between MESSAGE-INTEGRITY and FINGERPRINT is ignored', (t) => {
  const whole = encodeStun(request({ priority: 7 }), { integrityKey: KEY, crypto });
  const authentic = encodeHex(whole.subarray(20, -8));
  // USE-CANDIDATE, an unknown required one, a malformed PRIORITY and a second MESSAGE-INTEGRITY.
  const added = `002500007fff00000024000100000000${authentic.slice(-48)}`;
  const received = decoded(withFingerprint('0001', authentic + added));
  t.same(received.attributes, { priority: 7 });
  t.same(received.unknownRequired, []);
  t.ok(received.hasValidIntegrity(KEY, crypto));
  t.end();
});

await t.test('of an attribute that repeats, the first counts', (t) => {
  const bytes = message('0001', '0024000400000001002400040000000200240000');
  t.same(decoded(bytes).attributes, { priority: 1 });
  t.end();
});

await t.test('peer and relayed addresses are lists', (t) => {
  const addresses = ['192.0.2.1:1', '[2001:db8::1]:2', '192.0.2.1:1'] as SocketAddress[];
  const attributes = { xorPeerAddresses: addresses, xorRelayedAddresses: addresses };
  t.same(decoded(encodeStun(request(attributes), { crypto })).attributes, attributes);
  t.end();
});

await t.test('unknown attributes are skipped, and listed where they must be understood', (t) => {
  const bytes = message('0001', '7fff000401020304ffff0001ff0000000003000000250000');
  const received = decoded(bytes);
  t.same(received.unknownRequired, [0x7fff, 0x0003]);
  t.same(received.attributes, { useCandidate: true });
  t.end();
});

await t.test('a value of a wrong length, family or code is malformed', (t) => {
  const rows = [
    ['an address of no known family', '0020000800031111e112a643'],
    ['an IPv6 address with the length of an IPv4 one', '0020000800021111e112a643'],
    ['an empty address', '00200000'],
    ['a priority of 3 bytes', '0024000300000000'],
    ['a flag with a value', '0025000100000000'],
    ['a tie-breaker of 4 bytes', '8029000401020304'],
    ['an error code of class 7', '0009000400000700'],
    ['an error code of class 2', '0009000400000200'],
    ['an error code with number 100', '0009000400000464'],
    ['an error code of 2 bytes', '0009000200000000'],
    ['half an attribute type', '000a000100000000'],
    ['a channel number of 2 bytes', '000c000240000000'],
    ['a user name that is no UTF-8', '00060001ff000000'],
    ['MESSAGE-INTEGRITY of 4 bytes', '0008000401020304'],
    ['a length that leads out of the message', '0024000800000001'],
    ['a length whose padding leads out of the message', '0006000561626364'],
  ] as const;
  for (const [what, hex] of rows) t.notOk(decodeStun(message('0001', hex)).ok, what);
  t.same(decoded(message('0111', '0009000500000401ff000000')).attributes, {
    errorCode: { code: 401, reason: '' },
  });
  t.end();
});

await t.test('no other protocol on the socket is taken for STUN', (t) => {
  const bytes = fromHex(vectors[0]!.message);
  t.ok(isStun(bytes));
  t.ok(isStun(message('0001', '')));
  const others = [
    new Uint8Array(0),
    bytes.subarray(0, 19),
    bytes.subarray(0, -4),
    Uint8Array.of(...bytes, 0, 0, 0, 0),
    Uint8Array.of(0x40, ...bytes.subarray(1)),
    Uint8Array.of(0x80, ...bytes.subarray(1)),
    Uint8Array.of(...bytes.subarray(0, 4), 0, ...bytes.subarray(5)),
    // RFC 8489 §5: the length is a multiple of 4.
    Uint8Array.of(0, 1, 0, 1, ...bytes.subarray(4, 20), 0),
    // A WireGuard message whose index happens to be the cookie.
    Uint8Array.of(1, 0, 0, 0, 0x21, 0x12, 0xa4, 0x42, ...new Uint8Array(140)),
  ];
  for (const other of others) t.notOk(isStun(other), encodeHex(other.subarray(0, 24)));
  t.end();
});

await t.test('a message that is cut off anywhere is malformed', (t) => {
  for (const { section, message: hex } of vectors) {
    const bytes = fromHex(hex);
    for (let length = 0; length < bytes.length; length++) {
      const cut = bytes.slice(0, length);
      if (decodeStun(cut).ok) t.fail(`§${section} cut to ${length}`);
      // With a length field that agrees, attributes end early at most at the edge of one.
      if (length < 20) continue;
      cut[2] = (length - 20) >> 8;
      cut[3] = length - 20;
      const outcome = decodeStun(cut);
      t.notOk(outcome.ok && outcome.value.hasIntegrity && length < bytes.length - 8, `${length}`);
    }
  }
  t.end();
});

await t.test('random and mutated bytes never throw, and are mostly malformed', (t) => {
  const seed = Math.trunc(Math.random() * 2 ** 31);
  const random = new SeededRandom(seed);
  const samples = [
    ...vectors.map((vector) => fromHex(vector.message)),
    message('0113', '0009000f000004265374616c65204e6f6e6365008000000402000000'),
    message('0017', '001200080001a147e112a643001300050102030405000000'),
  ];
  let read = 0;
  for (let run = 0; run < 30_000; run++) {
    const bytes = run % 3 === 0 ? new Uint8Array(random.next() % 128) : samples[run % 6]!.slice();
    if (run % 3 === 0) {
      random.fill(bytes);
      bytes.set(
        fromHex('2112a442').subarray(0, Math.max(0, bytes.length - 4)),
        4 % bytes.length || 0,
      );
    }
    for (let changes = random.next() % 6; changes > 0 && bytes.length > 0; changes--) {
      bytes[random.next() % bytes.length] = random.next();
    }
    if (bytes.length >= 20 && run % 2 === 0) {
      bytes[0]! &= 1;
      bytes[2] = (bytes.length - 20) >> 8;
      bytes[3] = bytes.length - 20;
    }
    try {
      const outcome = decodeStun(bytes);
      if (!outcome.ok) continue;
      read++;
      outcome.value.hasValidIntegrity(KEY, crypto);
    } catch (error) {
      t.fail(`seed ${seed}, run ${run}: ${encodeHex(bytes)}: ${String(error)}`);
    }
  }
  t.ok(read > 1_000 && read < 20_000, `seed ${seed}: ${read} were read`);
  t.end();
});

await t.test('whatever is written is read back', (t) => {
  fc.assert(
    fc.property(anyMessage, fc.option(bytesOf(1, 64), { nil: undefined }), (message, key) => {
      const options = key === undefined ? { crypto } : { integrityKey: key, crypto };
      const bytes = encodeStun(message, options);
      const received = decoded(bytes);
      t.same(
        {
          class: received.class,
          method: received.method,
          transactionId: received.transactionId,
          attributes: received.attributes,
        },
        message,
      );
      return (
        bytes.length % 4 === 0 &&
        received.unknownRequired.length === 0 &&
        received.hasIntegrity === (key !== undefined) &&
        received.hasValidIntegrity(key ?? KEY, crypto) === (key !== undefined)
      );
    }),
    { numRuns: 300 },
  );
  t.end();
});

await t.test('the fingerprint is the CRC-32 of Ethernet, XORed with STUN', (t) => {
  const check = 0xcbf4_3926; // of "123456789", as every catalogue of CRCs has it
  t.equal(fingerprint(encodeUtf8('123456789')), (check ^ 0x5354_554e) >>> 0);
  t.end();
});

function bytesOf(minLength: number, maxLength: number) {
  return fc.uint8Array({ minLength, maxLength });
}

function canonical(ip: Uint8Array) {
  const parsed = parseIpAddress(ipAddressFromBytes(ip));
  if (!parsed.ok) throw new Error(encodeHex(ip));
  return parsed.value;
}

function request(attributes: StunAttributes): StunMessage {
  return { class: 'request', method: 'binding', transactionId: TRANSACTION_ID, attributes };
}

/** A message of this type with these attributes, in hexadecimal, and a right length. */
function message(type: string, attributes: string): Uint8Array {
  const length = (attributes.length / 2).toString(16).padStart(4, '0');
  return fromHex(`${type}${length}2112a442${encodeHex(TRANSACTION_ID)}${attributes}`);
}

function withFingerprint(type: string, attributes: string): Uint8Array {
  const whole = message(type, `${attributes}8028000400000000`);
  const crc = fingerprint(whole.subarray(0, -8)).toString(16).padStart(8, '0');
  return message(type, `${attributes}80280004${crc}`);
}

function flipped(bytes: Uint8Array, at: number): Uint8Array {
  return bytes.map((byte, i) => (i === at ? byte ^ 0x08 : byte));
}

function decoded(bytes: Uint8Array): ReceivedStun {
  const outcome = decodeStun(bytes);
  if (!outcome.ok) throw new Error(`malformed: ${encodeHex(bytes)}`);
  return outcome.value;
}

function vectorOf(section: string): Uint8Array {
  return fromHex(vectors.find((vector) => vector.section === section)!.message);
}

function fromHex(text: string): Uint8Array {
  const bytes = decodeHex(text);
  if (bytes === undefined) throw new Error(`not hexadecimal: ${text}`);
  return bytes;
}
