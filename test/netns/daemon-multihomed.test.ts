import t from 'tap';
import { eventually } from '../lab/daemon.ts';
import { whyNoLab, type Lab } from '../lab/namespaces.ts';
import { TwoSites } from '../lab/two-sites.ts';
import { WireguardGo } from '../lab/wireguard-go.ts';

/** Sites with two addresses each, where `a` knows the one of `b` that the kernel would not choose. */
const skip = whyNoLab();

const OUTER = {
  ipv4: { a: ['10.9.0.1', '10.9.0.11'], b: ['10.9.0.2', '10.9.0.22'], length: 24 },
  ipv6: { a: ['fd09::1', 'fd09::11'], b: ['fd09::2', 'fd09::22'], length: 64 },
} as const;

for (const outer of ['ipv4', 'ipv6'] as const) {
  const { a: addressesOfA, b: addressesOfB, length } = OUTER[outer];
  const flags = outer === 'ipv6' ? ' nodad' : '';
  // A deprecated address is the kernel's last choice (RFC 6724 §5, rule 3); of IPv4 it takes the first.
  const unliked = outer === 'ipv6' ? ' preferred_lft 0' : '';
  const at = (address: string) => (outer === 'ipv6' ? `[${address}]:51820` : `${address}:51820`);

  const multihomed = async (t: Parameters<typeof TwoSites.create>[0], prefix: string) => {
    const sites = await TwoSites.create(t, `${prefix}${outer.slice(-1)}`, { outer });
    const { lab, a, b } = sites;
    await lab.ip('a', `address add ${addressesOfA[1]}/${length} dev to-b${flags}`);
    await lab.ip('b', `address add ${addressesOfB[1]}/${length} dev to-a${flags}${unliked}`);
    // Or the second address of a network goes with the first one.
    const promote = 'net.ipv4.conf.all.promote_secondaries=1';
    for (const site of [a, b]) await lab.exec(site.name, ['sysctl', '-w', promote]);
    a.daemon.configure(sites.configurationOf(a, {}, { endpoint: at(addressesOfB[1]) }));
    b.daemon.configure(sites.configurationOf(b, {}, { endpoint: undefined }));
    return sites;
  };
  const endpointOf = async ({ daemon }: TwoSites['a']) =>
    (await daemon.status()).peers[0]?.endpoint;

  await t.test(`a stateful firewall lets the answers in over ${outer}`, { skip }, async (t) => {
    const sites = await multihomed(t, 'dmn-fw');
    const { lab, a, b } = sites;
    await dropStrangers(lab, 'a', a.device);
    await Promise.all([a.daemon.start(), b.daemon.start()]);
    await sites.ping(t, 'a', b.ipv4);
    await sites.ping(t, 'b', a.ipv6);
    const { peers } = await a.daemon.status();
    t.match(peers, [{ state: 'connected', endpoint: at(addressesOfB[1]) }]);
  });

  await t.test(`addresses go away under traffic over ${outer}`, { skip }, async (t) => {
    const sites = await multihomed(t, 'dmn-ad');
    const { lab, a, b } = sites;
    await Promise.all([a.daemon.start(), b.daemon.start()]);
    await sites.ping(t, 'a', b.ipv4);
    t.equal(await endpointOf(a), at(addressesOfB[1]));
    const pings = await sites.startPings('b', a.ipv4);

    await t.test('the one that was asked', async (t) => {
      await lab.ip('b', `address del ${addressesOfB[1]}/${length} dev to-a`);
      await pings.next();
      t.equal(await endpointOf(a), at(addressesOfB[0]), 'the peer follows');
    });

    await t.test('the one from which the other side calls', async (t) => {
      const before = await endpointOf(b);
      const gone = addressesOfA.find((address) => before === at(address)) ?? '';
      const left = addressesOfA.find((address) => address !== gone) ?? '';
      await lab.ip('a', `address del ${gone}/${length} dev to-b`);
      const outgoing = await sites.startPings('a', b.ipv6);
      t.equal(await endpointOf(b), at(left), 'the peer follows');
      await pings.next();
      await outgoing.end();
    });

    const { sent, lost } = await pings.end();
    t.ok(lost <= 10, `${lost} of ${sent} lost in both changes, ten a second`);
    const { lastError } = await b.daemon.status();
    t.equal(lastError, undefined);
  });
}

await t.test('a peer that calls from a link-local address is answered', { skip }, async (t) => {
  const sites = await TwoSites.create(t, 'dmn-ll');
  const { lab, b } = sites;
  await lab.ip('a', 'address add fe80::a/64 dev to-b nodad');
  await lab.ip('b', 'address add fe80::b/64 dev to-a nodad');
  // To another interface the kernel would rather send.
  await lab.ip('b', 'link add other type veth peer name another');
  await lab.ip('b', 'link set other up');
  await lab.ip('b', 'link set another up');
  await lab.ip('b', 'route add fe80::/64 dev other metric 1');
  const caller = await WireguardGo.start({
    lab,
    namespace: 'a',
    name: 'dmn-ll-go',
    addresses: ['100.64.0.1/32'],
    listenPort: 51_820,
  });
  const peer = { id: 'caller', publicKey: caller.publicKey, allowedIps: ['100.64.0.1/32'] };
  b.daemon.configure({ interface: { name: b.device, addresses: [`${b.ipv4}/32`] }, peers: [peer] });
  await b.daemon.start();
  await caller.wg(
    `peer ${b.publicKey} allowed-ips ${b.ipv4}/32 endpoint [fe80::b%to-b]:51820 persistent-keepalive 1`,
  );
  await lab.ip('a', `route add ${b.ipv4} dev dmn-ll-go`);
  await sites.ping(t, 'a', b.ipv4);
  await sites.ping(t, 'b', '100.64.0.1');
  await eventually(
    () => b.daemon.status(),
    ({ peers }) => peers[0]?.endpoint === '[fe80::a]:51820',
    5000,
  );
  await caller.stop();
});

/** Lets in what was asked for, and what comes through the tunnel. */
async function dropStrangers(lab: Lab, namespace: string, tunnel: string): Promise<void> {
  const ruleset = `
    table inet firewall {
      chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        iifname { lo, ${tunnel} } accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
      }
    }`;
  const { code, stderr } = await lab.exec(namespace, ['nft', '-f', '-'], { input: ruleset });
  if (code !== 0) throw new Error(stderr);
}
