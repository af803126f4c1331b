import fc from 'fast-check';
import t from 'tap';
import {
  candidatePriority,
  foundationOf,
  peerReflexivePriority,
} from '../../../core/ice/candidate-priority.ts';
import { formatCandidate, parseCandidate, type Candidate } from '../../../core/ice/candidate.ts';
import { at } from './network.ts';

const HOST: Candidate = {
  type: 'host',
  transport: 'udp',
  foundation: '1',
  priority: 2130706431,
  address: at('192.0.2.1:51820'),
};

await t.test('a candidate is written as RFC 8839 §5.1 has it', async (t) => {
  const reflexive: Candidate = {
    ...HOST,
    type: 'srflx',
    address: at('203.0.113.7:40000'),
    related: at('192.0.2.1:51820'),
  };
  const written: [Candidate, string][] = [
    [HOST, 'candidate:1 1 UDP 2130706431 192.0.2.1 51820 typ host'],
    [
      reflexive,
      'candidate:1 1 UDP 2130706431 203.0.113.7 40000 typ srflx raddr 192.0.2.1 rport 51820',
    ],
    [
      { ...HOST, address: at('[2001:db8::1]:9999') },
      'candidate:1 1 UDP 2130706431 2001:db8::1 9999 typ host',
    ],
    [
      { ...HOST, type: 'relay' },
      'candidate:1 1 UDP 2130706431 192.0.2.1 51820 typ relay raddr 0.0.0.0 rport 9',
    ],
  ];
  for (const [candidate, text] of written) {
    t.equal(formatCandidate(candidate), text);
    t.same(parseCandidate(text), candidate, 'and read back');
  }
});

await t.test('a stream candidate says who dials and what is spoken (RFC 6544 §4.5)', async (t) => {
  const common = { type: 'host', transport: 'tcp', foundation: 'a+/', priority: 7 } as const;
  const written: [Candidate, string][] = [
    [
      { ...common, tcpType: 'active', address: at('192.0.2.1:9') },
      'candidate:a+/ 1 TCP 7 192.0.2.1 9 typ host tcptype active',
    ],
    [
      { ...common, tcpType: 'passive', protocol: 'wss', address: at('192.0.2.1:443') },
      'candidate:a+/ 1 TCP 7 192.0.2.1 443 typ host tcptype passive protocol wss',
    ],
    [
      { ...common, type: 'srflx', tcpType: 'passive', address: at('[2001:db8::1]:443') },
      'candidate:a+/ 1 TCP 7 2001:db8::1 443 typ srflx raddr :: rport 9 tcptype passive',
    ],
  ];
  for (const [candidate, text] of written) {
    t.equal(formatCandidate(candidate), text);
    t.same(parseCandidate(text), candidate, 'and read back');
  }
  t.same(
    parseCandidate('candidate:a 1 tcp 7 192.0.2.1 1234 typ host tcptype active')?.address,
    '192.0.2.1:9',
    'a port of an active one means nothing',
  );
});

await t.test('what other implementations write is read', async (t) => {
  const texts = [
    'candidate:6815297761 1 udp 659136 192.0.2.1 51820 typ host generation 0 ufrag XXXX network-id 1',
    'candidate:Hc0a8 1 UDP 2130706431 192.0.2.1 51820 typ host protocol quic',
    'candidate:0 1 UDP 2122252543 192.0.2.1 51820 typ host tcptype active',
  ];
  for (const text of texts) t.match(parseCandidate(text), { transport: 'udp', type: 'host' }, text);
  t.notMatch(
    parseCandidate('candidate:0 1 TCP 1 192.0.2.1 1 typ host tcptype passive protocol quic'),
    { protocol: 'quic' },
    'an unknown protocol is an attribute like any unknown one',
  );
});

await t.test('anything else is no candidate', async (t) => {
  const refused = [
    '', 'candidate:', 'a=candidate:1 1 UDP 1 192.0.2.1 1 typ host',
    'candidate:1 2 UDP 1 192.0.2.1 1 typ host', 'candidate:1 1 UDP 0 192.0.2.1 1 typ host',
    'candidate:1 1 UDP 2147483648 192.0.2.1 1 typ host', 'candidate:1 1 UDP 1 192.0.2.1 0 typ host',
    'candidate:1 1 UDP 1 192.0.2.1 65536 typ host', 'candidate:1 1 UDP 1 192.0.2.1 -1 typ host',
    'candidate:1 1 UDP 1 example.net 1 typ host', 'candidate:1 1 UDP 1 a.local 1 typ host',
    'candidate:1 1 UDP 1 192.0.2.1 1 typ guess', 'candidate:1 1 SCTP 1 192.0.2.1 1 typ host',
    'candidate:1 1 TCP 1 192.0.2.1 1 typ host', 'candidate:1 1 TCP 1 192.0.2.1 1 typ host tcptype so',
    'candidate:1 1 UDP 1 192.0.2.1 1 typ host x', 'candidate:1 1 UDP 1 192.0.2.1 1 typ host ',
    'candidate:1 1 UDP 1  192.0.2.1 1 typ host', 'candidate: 1 UDP 1 192.0.2.1 1 typ host',
    'candidate:1_ 1 UDP 1 192.0.2.1 1 typ host', `candidate:${'1'.repeat(33)} 1 UDP 1 192.0.2.1 1 typ host`,
    'candidate:1 1 UDP 1 ::ffff:192.0.2.1 1 typ host', `candidate:1 1 UDP 1 ::1 1 typ host${' a b'.repeat(200)}`,
  ]; // prettier-ignore
  for (const text of refused) t.equal(parseCandidate(text), undefined, text.slice(0, 80));
});

await t.test('hostile text never throws', async () => {
  const words = ['candidate:1', '1', 'UDP', 'TCP', '7', '192.0.2.1', '::', '9', 'typ', 'host', 'raddr', 'rport', 'tcptype', 'active', '\0', '9'.repeat(40)]; // prettier-ignore
  const mixed = fc.array(fc.oneof(fc.constantFrom(...words), fc.string())).map((a) => a.join(' '));
  fc.assert(
    fc.property(fc.oneof(mixed, fc.string()), (text) => void parseCandidate(text)),
    { numRuns: 2000 },
  );
});

await t.test('direct ranks above relayed, datagrams above streams, IPv6 above IPv4', async (t) => {
  const ranked = [
    candidatePriority('host', 'udp', 6, 0),
    candidatePriority('host', 'udp', 6, 1),
    candidatePriority('host', 'udp', 4, 0),
    candidatePriority('prflx', 'udp', 4, 0),
    candidatePriority('srflx', 'udp', 6, 0),
    candidatePriority('host', 'tcp', 6, 0),
    candidatePriority('srflx', 'tcp', 4, 0),
    candidatePriority('relay', 'udp', 6, 0),
    candidatePriority('relay', 'udp', 4, 0),
  ];
  t.same(
    ranked,
    [...ranked].sort((a, b) => b - a),
  );
  t.equal(candidatePriority('host', 'udp', 6, 0), 126 * 2 ** 24 + 65_535 * 2 ** 8 + 255);
  const lowest = candidatePriority('relay', 'udp', 4, 1e9);
  t.ok(lowest >= 1 && (ranked[0] ?? 0) < 2 ** 31, 'RFC 8445 §5.1.2: 1 to 2^31 - 1');
});

await t.test('a check says what priority a peer-reflexive candidate would have', async (t) => {
  const priority = candidatePriority('host', 'udp', 4, 3);
  t.equal(
    peerReflexivePriority({ ...HOST, priority }),
    candidatePriority('prflx', 'udp', 4, 3),
    'RFC 8445 §7.1.1: the type differs, the local preference does not',
  );
});

await t.test('a foundation is that of type, base address, transport and server', async (t) => {
  const base = at('192.0.2.1:1000');
  const one = foundationOf('srflx', base, 'udp', 'a');
  t.equal(one, foundationOf('srflx', at('192.0.2.1:2000'), 'udp', 'a'), 'the port does not count');
  const others = [
    foundationOf('host', base, 'udp', 'a'),
    foundationOf('srflx', at('192.0.2.2:1000'), 'udp', 'a'),
    foundationOf('srflx', base, 'tcp', 'a'),
    foundationOf('srflx', base, 'udp', 'b'),
  ];
  t.equal(new Set([one, ...others]).size, 5);
  t.match(one, /^[a-zA-Z0-9+/]{1,32}$/);
});
