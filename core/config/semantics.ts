import { SITE_DNS_PORT } from '../dns/numbers.ts';
import { formatIpPrefix } from '../net/ip-prefix.ts';
import { encodeBase64 } from '../sansio/base64.ts';
import type {
  Configuration,
  InterfaceConfiguration,
  PeerConfiguration,
  RelayConfiguration,
  StreamsConfiguration,
} from './configuration.ts';
import { limitErrors, type ConfigurationError } from './error.ts';
import { formatRelayUrl } from './relay-url.ts';
import { repetitions } from './repetitions.ts';
import { checkMappedTargets, checkPrefixMaps, checkProxies } from './semantics-of-networks.ts';
import { checkAuthorizations, checkResources } from './semantics-of-resources.ts';

/** Returns what is wrong with a document whose single values are all right. */
export function checkSemantics(configuration: Configuration): readonly ConfigurationError[] {
  return limitErrors([
    ...checkInterface(configuration.interface),
    ...checkPeers(configuration.peers),
    ...checkRelays(configuration.relays),
    ...checkStreams(configuration.streams),
    ...checkResources(configuration),
    ...checkAuthorizations(configuration),
    ...checkLans(configuration),
    ...checkPrefixMaps(configuration.nat),
    ...checkMappedTargets(configuration),
    ...checkDns(configuration),
    ...checkProxies(configuration),
  ]);
}

function checkInterface({ addresses }: InterfaceConfiguration): readonly ConfigurationError[] {
  return repetitions(addresses.map(({ address }, i) => [address, `interface.addresses[${i}]`]));
}

function checkPeers(peers: readonly PeerConfiguration[]): readonly ConfigurationError[] {
  const paths = peers.map((peer, i) => [peer, `peers[${i}]`] as const);
  return [
    ...repetitions(paths.map(([{ id }, path]) => [id, `${path}.id`])),
    ...repetitions(
      paths.flatMap(([{ name }, path]) => (name === undefined ? [] : [[name, `${path}.name`]])),
    ),
    ...repetitions(
      paths.map(([{ publicKey }, path]) => [encodeBase64(publicKey), `${path}.publicKey`]),
    ),
    ...repetitions(
      paths.flatMap(([{ allowedIps }, path]) =>
        allowedIps.map((prefix, j) => [formatIpPrefix(prefix), `${path}.allowedIps[${j}]`]),
      ),
    ),
  ];
}

function checkRelays(relays: readonly RelayConfiguration[]): readonly ConfigurationError[] {
  return [
    ...repetitions(relays.map(({ url }, i) => [formatRelayUrl(url), `relays[${i}].url`])),
    ...relays.flatMap((relay, i) => checkRelay(relay, `relays[${i}]`)),
  ];
}

function checkRelay(relay: RelayConfiguration, path: string): readonly ConfigurationError[] {
  const { username, credential, secret } = relay;
  const hasLogin = username !== undefined && credential !== undefined;
  const hasHalf = (username === undefined) !== (credential === undefined);
  const isTurn = relay.url.service === 'turn';
  if (!isTurn && (username ?? credential ?? secret) !== undefined) {
    return [{ path, message: 'is a STUN server, which asks for no credentials: remove them' }];
  }
  if ((username ?? credential) !== undefined && secret !== undefined) {
    return [{ path, message: 'has a login and a secret: give one or the other' }];
  }
  if (hasHalf || (isTurn && hasLogin === (secret !== undefined))) {
    return [{ path, message: 'needs username and credential, or secret' }];
  }
  return [];
}

function checkStreams({
  listenPort,
  publicPort,
}: StreamsConfiguration): readonly ConfigurationError[] {
  if (publicPort === undefined || listenPort !== 0) return [];
  const message =
    'needs streams.listenPort, the port at which streams arrive that come to this one';
  return [{ path: 'streams.publicPort', message }];
}

/** Peers are no hosts of the LAN: their queries would be redirected, and their packets take its default route. */
function checkLans({ site, interface: own }: Configuration): readonly ConfigurationError[] {
  const lans = site.lans.map((lan, i) => [lan, `site.lans[${i}]`] as const);
  const message = 'is the interface of the tunnel (interface.name): name those of the LAN';
  const tunnels = lans.flatMap(([lan, path]) => (lan === own.name ? [{ path, message }] : []));
  return [...tunnels, ...repetitions(lans)];
}

function checkDns({ dns, site }: Configuration): readonly ConfigurationError[] {
  const zones = dns.rules.flatMap((rule, i) =>
    rule.zones.map((zone, j) => [zone, `dns.rules[${i}].zones[${j}]`] as const),
  );
  const lists = [
    { upstreams: dns.upstreams, path: 'dns' },
    ...dns.rules.map(({ upstreams }, i) => ({ upstreams, path: `dns.rules[${i}]` })),
  ];
  const errors = lists.flatMap(({ upstreams, path }) =>
    repetitions(upstreams.map(({ id }, i) => [id, `${path}.upstreams[${i}]`])),
  );
  if (dns.mode === 'redirect' && site.lans.length === 0) {
    const message = 'needs site.lans, the interfaces whose queries are redirected';
    errors.push({ path: 'dns.mode', message });
  }
  if (dns.listenPort === SITE_DNS_PORT) {
    const message = 'is the port at which peers ask for names: choose another one';
    errors.push({ path: 'dns.listenPort', message });
  }
  return [...errors, ...repetitions(zones)];
}
