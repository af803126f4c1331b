import t from 'tap';
import { parseConfiguration, type Configuration } from '../../../core/config/configuration.ts';
import { LIMITS } from '../../../core/config/defaults.ts';
import { configurationAfterUapi } from '../../../core/engine/uapi-configuration.ts';
import { formatIpPrefix } from '../../../core/net/ip-prefix.ts';
import { parseUapiRequest, type UapiSet } from '../../../core/wireguard/uapi.ts';

const A = '01'.repeat(32);
const B = '02'.repeat(32);
const C = '03'.repeat(32);

await t.test('a new peer is added beside those that run', async (t) => {
  const next = after(`public_key=${C}\nendpoint=192.0.2.1:5\nallowed_ip=10.3.0.0/16`);
  t.same(peers(next), {
    a: ['10.1.0.0/16'],
    b: ['10.2.0.0/16'],
    'wg-0303030303030303': ['10.3.0.0/16'],
  });
  t.match(next.peers[2], { endpoint: { host: '192.0.2.1', port: 5 } });
});

await t.test(
  'replace_peers leaves only the named ones, under their configured names',
  async (t) => {
    t.same(peers(after(`replace_peers=true\npublic_key=${B}\nallowed_ip=10.9.0.0/16`)), {
      b: ['10.9.0.0/16'],
    });
  },
);

await t.test('a prefix moves from the peer that has it to the one that gets it', async (t) => {
  t.same(peers(after(`public_key=${A}\nallowed_ip=10.2.0.0/16`)), {
    a: ['10.1.0.0/16', '10.2.0.0/16'],
    b: [],
  });
});

await t.test('remove takes a peer away, update_only makes none', async (t) => {
  t.same(
    peers(
      after(
        `public_key=${A}\nremove=true\npublic_key=${C}\nupdate_only=true\nallowed_ip=10.3.0.0/16`,
      ),
    ),
    {
      b: ['10.2.0.0/16'],
    },
  );
});

await t.test('what a request does not name stays', async (t) => {
  const next = after(`public_key=${A}\npersistent_keepalive_interval=7`);
  t.match(next.peers[0], { keepalive: 7, endpoint: { host: '192.0.2.9', port: 9 } });
  t.equal(next.interface.listenPort, 51820);
});

await t.test('a preshared key can be set and taken away', async (t) => {
  const set = after(`public_key=${A}\npreshared_key=${C}`);
  t.same(set.peers[0]?.presharedKey, new Uint8Array(32).fill(3));
  const cleared = after(`public_key=${A}\npreshared_key=${'00'.repeat(32)}`, set);
  t.equal(cleared.peers[0]?.presharedKey, undefined);
});

await t.test('a prefix follows the order of the request through all peers', async (t) => {
  const lines = [
    `public_key=${A}\nallowed_ip=10.2.0.0/16\nallowed_ip=-10.1.0.0/16`,
    `public_key=${C}\nallowed_ip=10.1.0.0/16\nallowed_ip=10.2.0.0/16`,
    `public_key=${A}\nallowed_ip=-10.2.0.0/16`,
    `public_key=${B}\nreplace_allowed_ips=true\nallowed_ip=10.1.0.0/16`,
    `public_key=${C}\nremove=true`,
    `public_key=${C}\nallowed_ip=10.3.0.0/16`,
  ];
  t.same(peers(after(lines.join('\n'))), {
    a: [],
    b: ['10.1.0.0/16'],
    'wg-0303030303030303': ['10.3.0.0/16'],
  });
});

await t.test('what no document may hold is refused', async (t) => {
  const tooMany = { ok: false, why: 'too-many' };
  const all = Array.from({ length: LIMITS.peers - 2 }, (_, i) => `public_key=${keyOf(i)}`);
  t.equal(after(all.join('\n')).peers.length, LIMITS.peers);
  t.same(refusal([...all, `public_key=${keyOf(all.length)}`].join('\n')), tooMany);
  const replaced = [...all, `public_key=${keyOf(all.length)}`].join('\n');
  t.equal(after(`replace_peers=true\n${replaced}`).peers.length, LIMITS.peers - 1);

  const prefixes = Array.from(
    { length: LIMITS.allowedIps },
    (_, i) => `allowed_ip=10.99.${i}.0/24`,
  );
  const own = [`public_key=${C}`, ...prefixes].join('\n');
  t.equal(after(own).peers[2]?.allowedIps.length, LIMITS.allowedIps);
  t.same(refusal(`${own}\nallowed_ip=10.100.0.0/16`), tooMany);

  const invalid = { ok: false, why: 'invalid' };
  t.same(refusal(`public_key=${'00'.repeat(32)}`), invalid, 'a key of zeros');
  t.same(refusal(`public_key=${A}\nendpoint=192.0.2.1:0`), invalid, 'a port of zero');
  const twin = `${'03'.repeat(8)}${'04'.repeat(24)}`;
  t.same(refusal(`public_key=${C}\npublic_key=${twin}`), invalid, 'two peers of one name');
});

function after(lines: string, from = running()): Configuration {
  const outcome = configurationAfterUapi(from, request(lines));
  if (!outcome.ok) throw new Error(outcome.why);
  return outcome.value;
}

function refusal(lines: string): unknown {
  return configurationAfterUapi(running(), request(lines));
}

function keyOf(number: number): string {
  return `ff${number.toString(16).padStart(14, '0')}`.padEnd(64, '0');
}

function request(lines: string): UapiSet {
  const parsed = parseUapiRequest(`set=1\n${lines}`);
  if (!parsed.ok || parsed.value.type !== 'set') throw new Error('not a set request');
  return parsed.value;
}

function running(): Configuration {
  const parsed = parseConfiguration({
    schema: 1,
    interface: { addresses: ['10.0.0.1/24'] },
    peers: [
      { id: 'a', publicKey: base64(1), allowedIps: ['10.1.0.0/16'], endpoint: '192.0.2.9:9' },
      { id: 'b', publicKey: base64(2), allowedIps: ['10.2.0.0/16'] },
    ],
  });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.errors));
  return parsed.value;
}

function base64(byte: number): string {
  return Buffer.alloc(32, byte).toString('base64');
}

function peers(configuration: Configuration): Record<string, string[]> {
  return Object.fromEntries(
    configuration.peers.map((p) => [p.id, p.allowedIps.map(formatIpPrefix)]),
  );
}
