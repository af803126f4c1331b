import fc from 'fast-check';
import t from 'tap';
import { parseUpstream, placeOf } from '../../../core/dns/upstream-url.ts';

await t.test('one server has one id, however it is written', async (t) => {
  const ids: Readonly<Record<string, readonly string[]>> = {
    '192.0.2.1:53': ['192.0.2.1', '192.0.2.1:53'],
    '192.0.2.1:5353': ['192.0.2.1:5353'],
    '127.0.0.1:53': ['127.0.0.1'],
    '[2001:db8::1]:53': ['2001:db8::1', '[2001:db8::1]', '[2001:DB8:0::1]:53'],
    '[::1]:5353': ['[::1]:5353'],
    'tls://dns.example:853': ['tls://dns.example', 'TLS://DNS.example.', 'tls://dns.example:853'],
    'tls://192.0.2.1:853': ['tls://192.0.2.1'],
    'tls://[2001:db8::1]:8853': ['tls://[2001:db8::1]:8853'],
    'https://dns.example:443/dns-query': [
      'https://dns.example',
      'https://dns.example.:443/dns-query',
      'HTTPS://dns.EXAMPLE/dns-query{?dns}',
    ],
    'https://dns.example:443/': ['https://dns.example/'],
    'https://[2001:db8::1]:8443/a%20b/C?k=v': ['https://[2001:db8::1]:8443/a%20b/C?k=v'],
  };
  for (const [id, texts] of Object.entries(ids)) {
    const [, scheme = 'plain'] = /^(tls|https):/.exec(id) ?? [];
    for (const text of texts) {
      t.same(parseUpstream(text), { ok: true, value: { id, protocol: scheme } }, text);
    }
  }
});

await t.test('an id says where the server is', async (t) => {
  t.same(placeOf('[2001:db8::1]:53'), {
    protocol: 'plain',
    endpoint: { host: '2001:db8::1', port: 53 },
  });
  t.same(placeOf('tls://dns.example:853'), {
    protocol: 'tls',
    endpoint: { host: 'dns.example', port: 853 },
  });
  t.same(placeOf('https://192.0.2.1:443/dns-query'), {
    protocol: 'https',
    endpoint: { host: '192.0.2.1', port: 443 },
    path: '/dns-query',
  });
  for (const text of [
    '192.0.2.1',
    'tls://dns.example',
    'https://dns.example',
    'TLS://a.b:853',
    '',
  ]) {
    t.equal(placeOf(text), undefined, `${text} is no id`);
  }
});

await t.test('what cannot be a server is refused', async (t) => {
  const refused = [
    '',
    'dns.example',
    'dns.example:53',
    '192.0.2.1:0',
    '192.0.2.1:65536',
    '192.0.2.1:',
    '192.0.2.256',
    '192.0.2.1/24',
    ' 192.0.2.1',
    '192.0.2.1\n',
    '0.0.0.0',
    '224.0.0.251',
    '255.255.255.255',
    '::',
    'ff02::fb',
    '::ffff:192.0.2.1',
    'fe80::1',
    'fe80::1%eth0',
    '[2001:db8::1',
    '2001:db8::1]:53',
    'udp://192.0.2.1',
    'http://dns.example/dns-query',
    'tls://',
    'tls://dns.example/',
    'tls://dns.example/path',
    'tls://user@dns.example',
    'tls://0.0.0.0',
    'tls://dns..example',
    'tls://-dns.example',
    'tls://d\u00f6ns.example',
    'https://',
    'https:///dns-query',
    'https://user:secret@dns.example/',
    'https://dns.example?a=b',
    'https://dns.example/a b',
    'https://dns.example/a#b',
    'https://dns.example/{a}',
    'https://dns.example/\r\nx:y',
    `https://dns.example/${'a'.repeat(501)}`,
    `tls://${'a.'.repeat(127)}aa`,
  ];
  for (const text of refused) {
    t.same(parseUpstream(text), { ok: false, why: 'not-an-upstream' }, JSON.stringify(text));
    t.equal(placeOf(text), undefined);
  }
});

await t.test('an id is read as itself; no text makes it throw', async () => {
  const words = [
    'tls://',
    'https://',
    '[',
    ']',
    ':',
    '::',
    '.',
    '/',
    '53',
    'a',
    '192.0.2.1',
    '{?dns}',
  ];
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.array(fc.constantFrom(...words)).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(text, (written) => {
      const first = parseUpstream(written);
      if (!first.ok) return placeOf(written) === undefined;
      const again = parseUpstream(first.value.id);
      const place = placeOf(first.value.id);
      return (
        again.ok && again.value.id === first.value.id && place?.protocol === first.value.protocol
      );
    }),
    { numRuns: 20_000 },
  );
});
