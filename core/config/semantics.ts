import { formatIpPrefix, networkOf } from '../net/ip-prefix.ts';
import { encodeBase64 } from '../sansio/base64.ts';
import type { Configuration, RelayConfiguration } from './configuration.ts';
import { limitErrors, type ConfigurationError } from './error.ts';
import { formatRelayUrl } from './relay-url.ts';

/** Returns what is wrong with a document whose single values are all right. */
export function checkSemantics(configuration: Configuration): readonly ConfigurationError[] {
  const errors: ConfigurationError[] = [];
  const seen = new Map<string, string>();

  /** Refuses the second use of what must be unique; `kind` keeps the names of different things apart. */
  function unique(kind: string, value: string, path: string): void {
    const first = seen.get(`${kind} ${value}`);
    if (first === undefined) seen.set(`${kind} ${value}`, path);
    else errors.push({ path, message: `is the same as ${first}` });
  }

  configuration.interface.addresses.forEach((address, i) => {
    unique('address', address.address, `interface.addresses[${i}]`);
  });
  configuration.peers.forEach((peer, i) => {
    const path = `peers[${i}]`;
    unique('id', peer.id, `${path}.id`);
    if (peer.name !== undefined) unique('name', peer.name, `${path}.name`);
    unique('publicKey', encodeBase64(peer.publicKey), `${path}.publicKey`);
    peer.allowedIps.forEach((prefix, j) => {
      unique('allowedIp', formatIpPrefix(networkOf(prefix)), `${path}.allowedIps[${j}]`);
    });
  });
  configuration.relays.forEach((relay, i) => {
    unique('relay', formatRelayUrl(relay.url), `relays[${i}].url`);
    errors.push(...checkRelay(relay, `relays[${i}]`));
  });
  const { listenPort, publicPort } = configuration.streams;
  if (publicPort !== undefined && listenPort === 0) {
    const message =
      'needs streams.listenPort, the port at which streams arrive that come to this one';
    errors.push({ path: 'streams.publicPort', message });
  }
  return limitErrors(errors);
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
