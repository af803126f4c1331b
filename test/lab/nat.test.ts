import t from 'tap';
import { Internet, SITE_NAMES, WAN, whyNoInternet, type SiteName } from './internet.ts';
import type { NatKind } from './nat.ts';

/** What is claimed of the NATs of the laboratory, in the words of RFC 4787, is observed here. */
const skip = whyNoInternet();

const PROBE = [process.execPath, 'test/lab/nat-probe.mjs'];
const SERVERS = [`${WAN.broker}:7001`, `${WAN.broker}:7002`, `${WAN.proxy}:7001`] as const;
const LOCAL_PORT = 4000;

type Dependence = 'endpoint-independent' | 'address-dependent' | 'address- and port-dependent';

interface Observed {
  readonly mapping: Dependence | 'none comes through';
  readonly filtering: Dependence | 'none comes through';
  readonly keepsPort: boolean;
}

const EXPECTED: Readonly<Record<NatKind, Observed>> = {
  none: {
    mapping: 'endpoint-independent',
    filtering: 'endpoint-independent',
    keepsPort: true,
  },
  fullCone: {
    mapping: 'endpoint-independent',
    filtering: 'endpoint-independent',
    keepsPort: true,
  },
  portRestricted: {
    mapping: 'endpoint-independent',
    filtering: 'address- and port-dependent',
    keepsPort: true,
  },
  symmetric: {
    mapping: 'address- and port-dependent',
    filtering: 'address- and port-dependent',
    keepsPort: false,
  },
  udpBlocked: { mapping: 'none comes through', filtering: 'none comes through', keepsPort: false },
  only443ViaProxy: {
    mapping: 'none comes through',
    filtering: 'none comes through',
    keepsPort: false,
  },
};

/** How coturn's client names the mapping. */
const NAMED: Readonly<Partial<Record<Observed['mapping'], string>>> = {
  'endpoint-independent': 'NAT with Endpoint Independent Mapping!',
  'address- and port-dependent': 'NAT with Address and Port Dependent Mapping!',
};

await t.test('each NAT does what its name says', { skip }, async (t) => {
  const internet = await Internet.create(t, 'nat-kind', { nats: { a: 'fullCone' } });
  await serve(internet);
  await internet.startRelay({ alternateAddress: WAN.relayAlternate });
  t.same(await observe(internet, 'b'), EXPECTED.none, 'none');
  for (const kind of [
    'fullCone',
    'portRestricted',
    'symmetric',
    'udpBlocked',
    'only443ViaProxy',
  ] as const) {
    await internet.changeNat('a', kind);
    t.same(await observe(internet, 'a'), EXPECTED[kind], kind);
    const said = NAMED[EXPECTED[kind].mapping];
    if (said !== undefined) t.match(await discover(internet, 'a'), said, `${kind}, says coturn`);
  }
});

await t.test(
  'two sites meet by UDP unless a symmetric NAT faces one that filters ports',
  { skip },
  async (t) => {
    const internet = await Internet.create(t, 'nat-meet', {
      nats: { a: 'fullCone', b: 'fullCone' },
    });
    await serve(internet);
    for (const [a, b, expected] of [
      ['fullCone', 'fullCone', true],
      ['fullCone', 'portRestricted', true],
      ['fullCone', 'symmetric', true],
      ['portRestricted', 'portRestricted', true],
      ['portRestricted', 'symmetric', false],
      ['symmetric', 'symmetric', false],
    ] as const) {
      await internet.changeNat('a', a);
      await internet.changeNat('b', b);
      t.equal(await meet(internet), expected, `${a} and ${b}: ${expected ? 'direct' : 'relay'}`);
    }

    await internet.changeNat('b', 'portRestricted');
    await internet.changeNat('a', 'portRestricted');
    await internet.blockDirect();
    t.equal(await meet(internet), false, 'the direct path is blocked');
    await internet.unblockDirect();
    t.equal(await meet(internet), true, 'and is not any more');
  },
);

await t.test('a line has troubles', { skip }, async (t) => {
  const internet = await Internet.create(t, 'nat-line', {
    nats: { a: 'portRestricted', b: 'symmetric' },
    lans: true,
  });
  const { lab } = internet;
  await serve(internet);

  await t.test('of lost packets', async (t) => {
    await internet.loss('a', 20);
    const lost = await lostPings(internet, 'a', 250);
    // Each of a ping and its answer passes with 80 %; ±6 standard deviations.
    t.ok(lost > 18 && lost < 54, `${lost.toFixed(0)} % of pings were lost, of 36 % expected`);
    await internet.loss('a', 0);
    t.equal(await lostPings(internet, 'a', 20), 0);
  });

  await t.test('of being cut', async (t) => {
    const addresses = await lab.ip('a', 'address show');
    await internet.cut('a');
    t.equal(await lostPings(internet, 'a', 5), 100);
    t.equal(await lostPings(internet, 'b', 5), 0, 'the other one is not');
    t.equal(await lab.ip('a', 'address show'), addresses, 'and the site cannot tell');
    await internet.restore('a');
    t.equal(await lostPings(internet, 'a', 5), 0);
  });

  await t.test('of a public address that changes under a flow', async (t) => {
    for (const site of SITE_NAMES) {
      const before = internet.publicAddressOf(site);
      t.match(await seenOf(internet, site), new RegExp(`^${before}:`));
      const addresses = await lab.ip(site, 'address show');
      await internet.changeWan(site);
      t.not(internet.publicAddressOf(site), before);
      t.match(await seenOf(internet, site), new RegExp(`^${internet.publicAddressOf(site)}:`));
      t.equal(await lab.ip(site, 'address show'), addresses, 'the site cannot tell');
    }
  });

  await t.test('of an uplink that goes and comes from another provider', async (t) => {
    const [own, seen] = [internet.addressOf('a'), internet.publicAddressOf('a')];
    await internet.loseUplink('a');
    t.equal((await lab.exec('a', ['ping', '-c1', '-W1', WAN.relay])).code, 2, 'unreachable');
    await internet.gainUplink('a');
    t.not(internet.addressOf('a'), own);
    t.not(internet.publicAddressOf('a'), seen);
    t.match(await lab.ip('a', 'address show'), internet.addressOf('a'));
    t.match(await seenOf(internet, 'a'), new RegExp(`^${internet.publicAddressOf('a')}:`));
  });

  await t.test('of a low MTU, which routers tell of', async (t) => {
    const ping = (bytes: number) =>
      lab.exec('a', ['ping', '-M', 'do', '-c1', '-W1', '-s', String(bytes - 28), WAN.relay]);
    t.equal((await ping(1400)).code, 0);
    await internet.lowMtu('a', 1280);
    t.equal((await ping(1280)).code, 0);
    t.match((await ping(1281)).stdout, /mtu = 1280/);
    await internet.lowMtu('a', 1500);
  });

  await t.test('a LAN host does not reach the other LAN but through a tunnel', async (t) => {
    const { host } = internet.lanOf('b');
    t.not((await lab.exec('host-a', ['ping', '-c1', '-W1', host])).code, 0);
    t.equal((await lab.exec('host-a', ['ping', '-c1', '-W1', '192.168.1.1'])).code, 0);
  });
});

await t.test('through the proxy only 443 can be reached', { skip }, async (t) => {
  const internet = await Internet.create(t, 'nat-proxy', {
    nats: { a: 'only443ViaProxy', b: 'udpBlocked' },
  });
  const proxy = await internet.startProxy();
  const relay = await internet.startRelay({ tlsPort: 443, secret: 'north' });
  const tls = (port: number) =>
    `curl -sS --max-time 2 -o /dev/null -w %{time_appconnect},%{http_connect}
      --cacert ${relay.certificate} https://${WAN.relay}:${port}/`.split(/\s+/);
  // coturn speaks TLS there and takes no HTTP, so the time of the TLS handshake tells.
  const reached = /^0\.\d*[1-9]\d*,/;
  const through = [...tls(443), '--proxy', proxy.url];
  t.match((await internet.lab.exec('a', through)).stdout, reached, 'TLS to 443 by CONNECT');
  t.match(proxy.lines.join('\n'), `CONNECT ${WAN.relay}:443`);
  const other = await internet.lab.exec('a', [...tls(3478), '--proxy', proxy.url]);
  t.match(other.stdout, /,403$/, 'other ports are refused');
  t.match((await internet.lab.exec('a', tls(443))).stdout, /^0\.0+,/, 'not without the proxy');
  t.match((await internet.lab.exec('b', tls(443))).stdout, reached, 'where only UDP is blocked');
});

await t.test('the relay relays, also between its own addresses', { skip }, async (t) => {
  const internet = await Internet.create(t, 'nat-relay', {
    nats: { a: 'symmetric', b: 'symmetric' },
  });
  const relay = await internet.startRelay({ users: { tester: 'of-the-lab' } });
  const relayed = async (...options: readonly string[]) => {
    const login = ['-u', 'tester', '-w', 'of-the-lab'];
    // Both ends of the client have an allocation (-y).
    const client = ['timeout', '8', 'turnutils_uclient', ...login, '-n', '3', '-y', '-c'];
    const { stdout } = await internet.lab.exec('a', [...client, ...options, WAN.relay]);
    return stdout;
  };
  const lossless = /lost packets 0 \(0\.0+%\)/;
  const [overUdp, overTcp] = await Promise.all([relayed(), relayed('-t')]);
  t.match(overUdp, lossless, 'over UDP');
  t.match(overTcp, lossless, 'over TCP');
  t.match(relay.lines.join('\n'), 'user <tester>');

  const ask = ['timeout', '0.5', 'turnutils_stunclient', WAN.relay];
  await relay.kill();
  t.notMatch((await internet.lab.exec('a', ask)).stdout, 'reflexive', 'it can be killed');
  await relay.start();
  t.match((await internet.lab.exec('a', ask)).stdout, 'reflexive', 'and started again');
});

async function serve(internet: Internet): Promise<void> {
  const running = internet.lab.spawn('wan', [...PROBE, 'serve', ...SERVERS]);
  await running.waitFor(/listening/, 5000);
}

async function observe(internet: Internet, site: SiteName): Promise<Observed> {
  const ask = [...PROBE, 'ask', String(LOCAL_PORT), ...SERVERS];
  const { stdout } = await internet.lab.exec(site, ask);
  const { seen, answered } = JSON.parse(stdout) as {
    seen: Record<string, string | undefined>;
    answered: Record<string, boolean>;
  };
  const [a1, a2, b1] = SERVERS.map((server) => seen[server]);
  if (a1 === undefined || a2 === undefined || b1 === undefined) {
    return { mapping: 'none comes through', filtering: 'none comes through', keepsPort: false };
  }
  return {
    mapping: dependence(a1 === a2, a1 === b1),
    filtering: dependence(answered[SERVERS[1]] === true, answered[SERVERS[2]] === true),
    keepsPort: a1 === `${internet.publicAddressOf(site)}:${LOCAL_PORT}`,
  };
}

function dependence(isSameAtOtherPort: boolean, isSameAtOtherAddress: boolean): Dependence {
  if (isSameAtOtherAddress) return 'endpoint-independent';
  return isSameAtOtherPort ? 'address-dependent' : 'address- and port-dependent';
}

/** Asks coturn's own client, which uses RFC 5780. */
async function discover(internet: Internet, site: SiteName): Promise<string> {
  const command = ['timeout', '5', 'turnutils_natdiscovery', '-m', WAN.relay];
  return (await internet.lab.exec(site, command)).stdout;
}

async function meet(internet: Internet): Promise<boolean> {
  const punch = [...PROBE, 'punch', String(LOCAL_PORT), SERVERS[0]];
  const results = await Promise.all(SITE_NAMES.map((site) => internet.lab.exec(site, punch)));
  return results.every(({ stdout }) => stdout.trim() === 'connected');
}

/** The address from which a server sees the site. */
async function seenOf(internet: Internet, site: SiteName): Promise<string> {
  const ask = [...PROBE, 'ask', String(LOCAL_PORT), ...SERVERS];
  const { stdout } = await internet.lab.exec(site, ask);
  return (JSON.parse(stdout) as { seen: Record<string, string> }).seen[SERVERS[0]] ?? '';
}

/** Percent. */
async function lostPings(internet: Internet, site: SiteName, count: number): Promise<number> {
  const ping = ['ping', '-n', '-q', '-i', '0.005', '-W', '0.3', '-c', String(count), WAN.relay];
  const { stdout } = await internet.lab.exec(site, ping);
  return Number(/([\d.]+)% packet loss/.exec(stdout)?.[1]);
}
