import type { SeededRandom } from '../../sim/seeded-random.ts';
import { question } from './messages.ts';

/** Questions of each kind, about names of each kind, with and without EDNS. */
export function queryTemplates(): readonly Uint8Array[] {
  const names = [
    'crm.corp.example',
    'corp.example',
    'v4.example',
    'www.example',
    'WWW.eXample',
    'nas.lan',
    'printer',
    '_sip._tcp.crm.corp.example',
    '4.0.96.100.in-addr.arpa',
    'use-application-dns.net',
    '.',
  ];
  const types = ['A', 'AAAA', 'ANY', 'HTTPS', 'SRV', 'TXT', 'PTR', 'MX'];
  return names.flatMap((name) =>
    types.flatMap((type) => [
      question(name, type),
      question(name, type, { udpSize: 1232, isDnssecOk: true }),
      question(name, type, { udpSize: 600, ednsVersion: 1 }),
    ]),
  );
}

/** Returns one of the templates: as it is, cut off, with some bytes changed, or random bytes in its place. */
export function mutatedQuery(templates: readonly Uint8Array[], random: SeededRandom): Uint8Array {
  const template = templates[random.next() % templates.length] ?? new Uint8Array(0);
  const kind = random.next() % 8;
  if (kind === 0) {
    const bytes = new Uint8Array(random.next() % 80);
    random.fill(bytes);
    if (bytes.length > 2) bytes[2] = (bytes[2] ?? 0) & 0x7f;
    return bytes;
  }
  const bytes = template.slice(0, kind === 1 ? random.next() % template.length : undefined);
  if (kind < 5 && bytes.length > 0) {
    for (let n = 1 + (random.next() % 4); n > 0; n--) {
      bytes[random.next() % bytes.length] = random.next() & 0xff;
    }
  }
  return bytes;
}
