import fc from 'fast-check';
import t from 'tap';
import { decodeBase64, encodeBase64 } from '../../../core/sansio/base64.ts';
import { decodeHex, encodeHex } from '../../../core/sansio/hex.ts';
import { decodeUtf8, encodeUtf8 } from '../../../core/sansio/utf8.ts';

await t.test('base64: the vectors of RFC 4648 §10', async (t) => {
  const vectors = {
    '': '',
    f: 'Zg==',
    fo: 'Zm8=',
    foo: 'Zm9v',
    foob: 'Zm9vYg==',
    fooba: 'Zm9vYmE=',
  };
  for (const [text, encoded] of Object.entries({ ...vectors, foobar: 'Zm9vYmFy' })) {
    t.equal(encodeBase64(encodeUtf8(text)), encoded);
    t.same(decodeBase64(encoded), encodeUtf8(text));
  }
});

await t.test('base64: refuses what it would not write itself', async (t) => {
  const refused = [
    'Zg',
    'Zg=',
    'Zg===',
    'Zh==',
    'Zm9=',
    '====',
    '=',
    'Z===',
    'Zm 9',
    'Zm9\n',
    'Zm-_',
  ];
  for (const text of [...refused, 'Zg==Zg==', 'Zm\u{100}v', 'Zm9v=', 'Zm=v']) {
    t.equal(decodeBase64(text), undefined, JSON.stringify(text));
  }
});

await t.test('base64 and hex: agree with Buffer both ways', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const buffer = Buffer.from(bytes);
      return (
        encodeBase64(bytes) === buffer.toString('base64') &&
        buffer.equals(decodeBase64(buffer.toString('base64')) ?? Buffer.from('?')) &&
        encodeHex(bytes) === buffer.toString('hex') &&
        buffer.equals(decodeHex(buffer.toString('hex').toUpperCase()) ?? Buffer.from('?'))
      );
    }),
  );
  fc.assert(
    fc.property(fc.string({ maxLength: 12 }), (text) => {
      const bytes = decodeBase64(text);
      return bytes === undefined || encodeBase64(bytes) === text;
    }),
  );
  t.pass();
});

await t.test('hex: refuses odd lengths and other characters', async (t) => {
  for (const text of ['0', '0g', 'g0', '0x', ' 0', '@0', '`0', '\u{130}0']) {
    t.equal(decodeHex(text), undefined, text);
  }
});

await t.test('utf8: agrees with TextEncoder on any text, lone surrogates too', async (t) => {
  const encoder = new TextEncoder();
  fc.assert(
    fc.property(fc.string({ unit: fc.nat(0xffff).map((c) => String.fromCharCode(c)) }), (text) =>
      Buffer.from(encodeUtf8(text)).equals(encoder.encode(text)),
    ),
  );
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => decodeUtf8(encodeUtf8(text)) === text),
  );
  const long = 'aß水🎉'.repeat(5000);
  t.equal(decodeUtf8(encodeUtf8(long)), long);
});

await t.test('utf8: refuses exactly the bytes that a strict TextDecoder refuses', async (t) => {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const strict = (bytes: Uint8Array): string | undefined => {
    try {
      return decoder.decode(bytes);
    } catch {
      return undefined;
    }
  };
  const lead = fc.constantFrom(
    0x41,
    0x7f,
    0xc1,
    0xc2,
    0xdf,
    0xe0,
    0xed,
    0xef,
    0xf0,
    0xf4,
    0xf5,
    0xff,
  );
  const following = fc.constantFrom(0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbb, 0xbf, 0xc0);
  const bytes = fc.array(fc.oneof(lead, following), { maxLength: 6 });
  fc.assert(
    fc.property(bytes, (list) => {
      const input = Uint8Array.from(list);
      return decodeUtf8(input) === strict(input);
    }),
    { numRuns: 5000 },
  );
  t.equal(decodeUtf8(Uint8Array.of(0xed, 0xa0, 0x80)), undefined, 'a surrogate');
  t.equal(decodeUtf8(Uint8Array.of(0xc0, 0x80)), undefined, 'an overlong zero');
  t.equal(decodeUtf8(Uint8Array.of(0xef, 0xbb, 0xbf, 0x41)), '\u{feff}A', 'the mark stays');
});
