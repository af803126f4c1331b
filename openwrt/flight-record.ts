import { createHash } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import type { Configuration, PeerConfiguration } from '../core/config/configuration.ts';
import { formatEndpoint } from '../core/config/endpoint.ts';
import { formatRelayUrl } from '../core/config/relay-url.ts';
import type { Input } from '../core/engine/input.ts';
import { isResourcesInput, type ResourcesInput } from '../core/engine/resources.ts';
import { formatIpPrefix } from '../core/net/ip-prefix.ts';
import type { ControlEvent } from '../core/plugin/control-channel.ts';
import type { Recorded } from '../core/plugin/flight-recorder.ts';
import { encodeBase64 } from '../core/sansio/base64.ts';
import { unreachable } from '../core/sansio/outcome.ts';
import type { UapiPeerSet, UapiSet } from '../core/wireguard/uapi.ts';

/**
 * Writes the inputs that led to an error beside the socket of the daemon, which is no flash, with mode
 * 0600 and without secrets. Returns the path, or `undefined` where it cannot be written.
 */
export function writeFlightRecord(
  socket: string,
  inputs: readonly Recorded<Input>[],
  error: unknown,
): string | undefined {
  const path = `${socket}.flight-record.json`;
  try {
    const record = {
      error: { message: messageOf(error), stack: framesOf(error) },
      inputs: inputs.map(({ now, input }) => ({ now, input: writable(input) })),
    };
    // An older record may have another mode, or be a link.
    rmSync(path, { force: true });
    writeFileSync(path, `${JSON.stringify(record)}\n`, { mode: 0o600, flag: 'wx' });
    return path;
  } catch {
    // The process is about to end anyway; the log line says that there is none.
    return undefined;
  }
}

/** Says what went wrong. V8 shows the text around an error of JSON, which may be a secret. */
export function messageOf(error: unknown): string {
  const text = String(error);
  return error instanceof SyntaxError ? text.replace(/, (\.\.\.)?".*$/s, '') : text;
}

function framesOf(error: unknown): readonly string[] {
  const lines = error instanceof Error ? (error.stack ?? '').split('\n') : [];
  return lines.filter((line) => line.startsWith('    at ')).map((line) => line.trim());
}

/**
 * Returns what may be written of an input. Every value here is chosen: what an input gains later is left
 * out until somebody says that it is no secret. A message is told by its hash, the `document` in what a
 * device reports, because the body of a desired state holds preshared keys.
 */
function writable(input: Input): unknown {
  if (isResourcesInput(input)) return ofResources(input);
  const { type } = input;
  switch (type) {
    case 'configuration':
      return { type, configuration: ofConfiguration(input.configuration) };
    case 'configuration-refused':
      return { type, why: input.why };
    case 'wall-clock':
      return { type, unixMs: input.unixMs };
    case 'control':
      return { type, event: ofControl(input.event) };
    case 'uapi-set':
      return { type, request: ofUapi(input.request) };
    case 'device-opened':
      if (!input.outcome.ok) return { type, why: input.outcome.why };
      return { type, name: input.outcome.value.name };
    case 'listening':
      if (!input.outcome.ok) return { type, why: input.outcome.why };
      return { type, port: input.outcome.value.port };
    case 'link-applied':
      return { type, failures: input.failures.map(({ object, code }) => ({ object, code })) };
    case 'stored':
      return { type, ok: input.outcome.ok };
    case 'resolved':
      return {
        type,
        peer: input.peer,
        addresses: input.outcome.ok ? input.outcome.value : undefined,
      };
    case 'local-addresses':
      return { type, addresses: input.addresses };
    case 'relay-resolved':
      return {
        type,
        relay: input.relay,
        addresses: input.outcome.ok ? input.outcome.value : undefined,
      };
    case 'streams-listening':
      return { type, why: input.outcome.ok ? undefined : input.outcome.why };
    case 'stop':
      return { type, reason: input.reason };
    case 'drain':
    case 'cancel-drain':
    case 'links-changed':
      return { type };
    default:
      return unreachable(input);
  }
}

function ofResources(input: ResourcesInput): unknown {
  const { type } = input;
  switch (type) {
    case 'dns-listening':
      return { type, failures: input.failures };
    case 'dns-intercepted':
      return { type, why: input.failure?.why };
    case 'system-names':
      return { type, nameservers: input.names.nameservers };
    case 'ruleset-applied':
      return { type, failures: input.failures.map(({ object, code }) => ({ object, code })) };
    case 'ruleset-changed':
      return { type };
    default:
      return unreachable(input);
  }
}

function ofConfiguration(configuration: Configuration): unknown {
  const { interface: own, peers, relays, streams, log } = configuration;
  const { name, mtu, listenPort } = own;
  return {
    interface: { name, mtu, listenPort, addresses: own.addresses.map(formatIpPrefix) },
    peers: peers.map(ofPeer),
    relays: relays.map(({ url }) => formatRelayUrl(url)),
    streams: {
      listenPort: streams.listenPort,
      publicPort: streams.publicPort,
      protocol: streams.protocol,
    },
    // Names of resources are private: how many there are is enough.
    resources: configuration.resources.map(({ id, type, gateways }) => ({ id, type, gateways })),
    authorizations: configuration.authorizations.map(({ peer, resource }) => [peer, resource]),
    dns: { mode: configuration.dns.mode, listenPort: configuration.dns.listenPort },
    log: { level: log.level },
  };
}

function ofPeer(peer: PeerConfiguration): unknown {
  const { id, publicKey, presharedKey, kind, endpoint, allowedIps, keepalive } = peer;
  return {
    id,
    publicKey: encodeBase64(publicKey),
    hasPresharedKey: presharedKey !== undefined,
    kind,
    endpoint: endpoint === undefined ? undefined : formatEndpoint(endpoint),
    allowedIps: allowedIps.map(formatIpPrefix),
    keepalive,
  };
}

function ofControl(event: ControlEvent): unknown {
  const { type } = event;
  switch (type) {
    case 'connected':
      return { type, broker: event.broker, protocol: event.protocol };
    case 'disconnected':
      return { type, why: event.why };
    case 'message': {
      const { topic, payload } = event;
      const sha256 = createHash('sha256').update(payload).digest('hex');
      return { type, topic, bytes: payload.length, sha256 };
    }
    default:
      return unreachable(event);
  }
}

function ofUapi({ privateKey, listenPort, fwmark, replacePeers, peers }: UapiSet): unknown {
  const setsPrivateKey = privateKey !== undefined;
  return { setsPrivateKey, listenPort, fwmark, replacePeers, peers: peers.map(ofUapiPeer) };
}

function ofUapiPeer(peer: UapiPeerSet): unknown {
  const { publicKey, presharedKey, remove, updateOnly, endpoint, persistentKeepalive } = peer;
  return {
    publicKey: encodeBase64(publicKey),
    setsPresharedKey: presharedKey !== undefined,
    remove,
    updateOnly,
    endpoint,
    persistentKeepalive,
    replaceAllowedIps: peer.replaceAllowedIps,
    allowedIps: peer.allowedIps.map(({ action, prefix }) => [action, formatIpPrefix(prefix)]),
  };
}
