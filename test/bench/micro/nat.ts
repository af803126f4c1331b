import { Access } from '../../../core/access/access.ts';
import { Authorizations } from '../../../core/access/authorizations.ts';
import { parseConfiguration, type Configuration } from '../../../core/config/configuration.ts';
import type { DomainName } from '../../../core/dns/name.ts';
import { parsePattern, PatternTable, type Pattern } from '../../../core/dns/pattern.ts';
import { ProxyPool } from '../../../core/dns/proxy-pool.ts';
import { ClientSide } from '../../../core/engine/client-side.ts';
import { FlowPolicy } from '../../../core/engine/flow-policy.ts';
import { GatewaySide } from '../../../core/engine/gateway-side.ts';
import type { Flow } from '../../../core/fastpath/flow.ts';
import { Sessions } from '../../../core/engine/sessions.ts';
import { MOST_SESSIONS, SessionTable } from '../../../core/nat/session-table.ts';
import type { NatTuple } from '../../../core/nat/tuple.ts';
import { ipAddressFromBytes } from '../../../core/net/ip-address.ts';
import { Peering } from '../../../core/peering/peering.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { less } from '../samples.ts';
import { sink, timePerCall, type Finding } from './micro-bench.ts';

const lookup = less('find a session', 'ns');
const decision = less('decide about a flow', 'ns');
const resourceOfName = less('find the resources of a name', 'ns');
const firstIn = less('first packet of a flow from a peer', 'ns');
const firstOut = less('first packet of a flow from the LAN', 'ns');
const opening = less('open a session, and end it', 'ns');
const memory = less('memory a session', 'bytes');

export const natMetrics = [lookup, opening, firstIn, firstOut, decision, resourceOfName, memory];

const SESSIONS = [100, 10_000, MOST_SESSIONS] as const;
const RESOURCES = [100, 10_000] as const;
const NOW = instantAt(0);
/** Looked up in one call of the loop, from everywhere in the table. */
const ASKED = 1024;

/** The session table and the decisions about access, small and full. */
export function nat(seconds: number): Finding[] {
  const each = Math.min(seconds, 1);
  return [
    ...sessions(each),
    ...openings(each),
    ...firstPackets(each, 'gateway'),
    ...firstPackets(each, 'client'),
    ...decisions(each),
    ...resources(each),
  ];
}

function sessions(seconds: number): Finding[] {
  return SESSIONS.flatMap((size) => {
    const subject = `${size.toLocaleString('en')} sessions`;
    const before = memoryUsed();
    const table = new SessionTable<object>({
      random: { fill: (out) => out.fill(7) },
      mostPerOwner: MOST_SESSIONS,
    });
    const tag = {};
    for (let n = 0; n < size; n++) {
      const tuple = tupleOf(n);
      const outside = { source: tuple.source, destination: Uint8Array.of(10, 0, 0, 1 + (n & 7)) };
      table.open(tuple, outside, 0, tag, NOW);
    }
    const bytes = memoryUsed() - before;
    const asked = Array.from({ length: ASKED }, (_, i) => tupleOf((i * 7919) % size));
    const perCall = timePerCall(seconds, () => {
      for (const tuple of asked) sink.value = table.findRequest(tuple);
    });
    return [
      { subject, metric: lookup, value: (perCall * 1e6) / ASKED },
      // The columns are there from the start.
      ...(size === MOST_SESSIONS ? [{ subject, metric: memory, value: bytes / size }] : []),
    ];
  });
}

/** What the first packet of a flow costs beyond the decision, with records of flows and all. */
function openings(seconds: number): Finding[] {
  return SESSIONS.map((size) => {
    const subject = `${size.toLocaleString('en')} sessions`;
    const random = { fill: (out: Uint8Array) => out.fill(7) };
    const pathOf = () => 'direct' as const;
    const options = { random, unixMs: 0, onEnd: () => undefined, pathOf };
    const sessions = new Sessions(options, NOW);
    const open = (n: number) => {
      const source = Uint8Array.of(100, 64, n >> 14, 2);
      const destination = Uint8Array.of(100, 96, 0, 1);
      const ports = { sourcePort: 1 + (n & 0x3fff), destinationPort: 443 };
      const flow: Flow = {
        family: 4,
        protocol: 6,
        source,
        destination,
        ...ports,
        isFragment: false,
      };
      const outside = { source, destination: Uint8Array.of(10, 0, 0, 1) };
      const peer = n >> 14;
      const tag = {
        role: 'gateway',
        peer,
        peerId: 'p',
        resource: 'r',
        domain: 'r.example',
      } as const;
      sink.value = sessions.open(flow, outside, tag, NOW);
      return sessions.findRequest('gateway', flow)?.session ?? 0;
    };
    // One place is left for the flow that comes and goes.
    for (let n = 0; n < size - 1; n++) open(n);
    const perCall = timePerCall(seconds, () => sessions.end(open(size), NOW));
    return { subject, metric: opening, value: perCall * 1e6 };
  });
}

/** The whole decision about a flow that nothing is known of, and the end of its session. */
function firstPackets(seconds: number, role: 'gateway' | 'client'): Finding[] {
  const isGateway = role === 'gateway';
  return [0, 1000, MOST_SESSIONS].map((size) => {
    const subject = `${size.toLocaleString('en')} sessions`;
    const random = { fill: (out: Uint8Array) => out.fill(7) };
    const options = { random, unixMs: 0, onEnd: () => undefined, pathOf: () => undefined };
    const sessions = new Sessions(options, NOW);
    const { dns, ...others } = configurationFor(role);
    const pool = new ProxyPool(dns.proxies);
    const gateway = new GatewaySide({ sessions, unixMs: 0 }, NOW);
    const client = new ClientSide({ sessions, pool, isUp: () => true });
    const peering = new Peering();
    const isReachable = () => true;
    const policy = new FlowPolicy({ peering, sessions, client, gateway, isReachable });
    const routed = others.peers.map(({ id, allowedIps }, index) => {
      return { index, id, addresses: [], allowedIps };
    });
    const known = new Map(routed.map((peer) => [peer.id, peer]));
    gateway.configure({ dns, ...others }, known, NOW);
    client.configure({ dns, ...others }, known, NOW);
    policy.setPeers(routed);
    const decide = (n: number): Flow => {
      const peer = n % PEERS;
      const source = isGateway ? Uint8Array.of(100, 64, peer, 2) : Uint8Array.of(192, 168, 1, 2);
      const flow = {
        ...flowTo(Uint8Array.of(10, peer, 0, 1)),
        source,
        sourcePort: 1 + Math.floor(n / PEERS),
      };
      sink.value = isGateway ? policy.inbound(peer, flow, NOW) : policy.outbound(flow, NOW);
      return flow;
    };
    // One place is left for the flow that comes and goes.
    for (let n = 0; n < Math.min(size, MOST_SESSIONS - 1); n++) decide(n);
    const perCall = timePerCall(seconds, () => {
      const session = sessions.findRequest(role, decide(MOST_SESSIONS))?.session;
      if (session === undefined) throw new Error('the flow has no session');
      sessions.end(session, NOW);
    });
    return { subject, metric: isGateway ? firstIn : firstOut, value: perCall * 1e6 };
  });
}

/** So many that none of them has too many sessions. */
const PEERS = 8;

/** Each peer has its own resource here, or serves one. */
function configurationFor(role: 'gateway' | 'client'): Configuration {
  const filters = [{ protocol: 'tcp', ports: ['443'] }];
  const numbers = Array.from({ length: PEERS }, (_, n) => n);
  const parsed = parseConfiguration({
    schema: 1,
    interface: { addresses: ['100.64.255.1/32'] },
    peers: numbers.map((n) => ({
      id: `p${n}`,
      kind: 'culvert',
      publicKey: Buffer.alloc(32, n + 1).toString('base64'),
      allowedIps: [`100.64.${n}.0/24`],
    })),
    resources: numbers.map((n) => ({
      id: `r${n}`,
      type: 'cidr',
      prefixes: [`10.${n}.0.0/16`],
      filters,
      gateways: role === 'client' ? [`p${n}`] : [],
    })),
    authorizations:
      role === 'client' ? [] : numbers.map((n) => ({ peer: `p${n}`, resource: `r${n}` })),
  });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed));
  return parsed.value;
}

/** Half of the resources have one name each, half all names below one. */
function resources(seconds: number): Finding[] {
  return RESOURCES.map((size) => {
    const subject = `${size.toLocaleString('en')} resources`;
    const table = new PatternTable(
      Array.from({ length: size }, (_, n) => [
        patternOf(n % 2 === 0 ? `app${n}` : `**.app${n}`),
        n,
      ]),
    );
    const asked = Array.from({ length: ASKED }, (_, i) => {
      const n = (i * 7919) % size;
      return `${n % 2 === 0 ? '' : 'www.'}app${n}.corp.example` as DomainName;
    });
    const perCall = timePerCall(seconds, () => {
      for (const name of asked) sink.value = table.matches(name);
    });
    return { subject, metric: resourceOfName, value: (perCall * 1e6) / ASKED };
  });
}

function patternOf(host: string): Pattern {
  const pattern = parsePattern(`${host}.corp.example`);
  if (!pattern.ok) throw new Error(pattern.why);
  return pattern.value;
}

function decisions(seconds: number): Finding[] {
  return RESOURCES.map((size) => {
    const subject = `${size.toLocaleString('en')} resources`;
    const ids = Array.from({ length: size }, (_, n) => `r${n}`);
    const authorizations = new Authorizations(0, NOW);
    authorizations.replace(
      ids.map((resource) => ({ peer: 'a', resource, filters: [] })),
      NOW,
    );
    const access = new Access(authorizations);
    access.setResources(
      ids.map((id, n) => ({
        id,
        type: 'ip',
        address: ipAddressFromBytes(addressOf(n)),
        filters: [{ protocol: 'tcp', ports: [{ first: 443, last: 443 }] }],
      })),
    );
    const flows = Array.from({ length: ASKED }, (_, i) => flowTo(addressOf((i * 7919) % size)));
    const perCall = timePerCall(seconds, () => {
      for (const flow of flows) sink.value = access.decideRequest('a', flow);
    });
    return { subject, metric: decision, value: (perCall * 1e6) / ASKED };
  });
}

function tupleOf(n: number): NatTuple {
  const source = Uint8Array.of(100, 64, n >> 14, 2);
  return { protocol: 6, source, port: 1 + (n & 0x3fff), destination: Uint8Array.of(100, 96, 0, 1) };
}

function addressOf(n: number): Uint8Array {
  return Uint8Array.of(10, n >> 16, (n >> 8) & 0xff, n & 0xff);
}

function flowTo(destination: Uint8Array): Flow {
  const source = Uint8Array.of(100, 64, 0, 2);
  const ports = { sourcePort: 5000, destinationPort: 443 };
  return { family: 4, protocol: 6, source, destination, ...ports, isFragment: false };
}

/** In bytes, after a collection. */
function memoryUsed(): number {
  globalThis.gc?.();
  const { heapUsed: objects, arrayBuffers } = process.memoryUsage();
  return objects + arrayBuffers;
}
