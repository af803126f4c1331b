import { Connections, type TunnelDatagram } from '../../../core/connection/connections.ts';
import type { ConnectionsEvent } from '../../../core/connection/event.ts';
import type { Candidate } from '../../../core/ice/candidate.ts';
import { candidatePriority, foundationOf } from '../../../core/ice/candidate-priority.ts';
import { parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';
import { parseIpPrefix, type IpPrefix } from '../../../core/net/ip-prefix.ts';
import {
  parseSocketAddress,
  socketAddressIp,
  type SocketAddress,
} from '../../../core/net/socket-address.ts';
import { instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../../plugins/crypto-node/index.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';

/*
 * Two devices with all that is about their connections, on a network that delivers at once or not at all.
 */

const crypto = createNodeCrypto(createNobleCrypto());

export interface World {
  readonly left: Device;
  readonly right: Device;
}

/** Two devices that do not know yet where the other one is. */
export function pair(
  seed: number,
  options: { listens?: boolean; isUdpBlocked?: boolean } = {},
): World {
  const left = new Device(seed + 1, '192.0.2.1', options.isUdpBlocked === true);
  const right = new Device(seed + 2, '198.51.100.1', options.isUdpBlocked === true);
  if (options.listens === true) {
    right.connections.setStreams({ port: 443, protocol: 'tls' }, undefined, right.now);
  }
  left.meet(right);
  right.meet(left);
  return { left, right };
}

/** The same, connected. */
export function meet(seed: number, options: { listens?: boolean } = {}): World {
  const world = pair(seed, options);
  world.left.learn(world.right);
  world.left.run(1_000);
  return world;
}

export class Device {
  readonly connections: Connections;
  readonly publicKey: Uint8Array;
  readonly events: ConnectionsEvent[] = [];
  readonly hungUp: number[] = [];
  readonly dials: Extract<ConnectionsEvent, { type: 'dial' }>[] = [];
  readonly paths: string[] = [];
  now: Instant = instantAt(0);
  #address: IpAddress;
  #other: Device | undefined;
  #undelivered: string[] = [];
  readonly #isUdpBlocked: boolean;
  /** The stream at the other end, by ours. */
  readonly #joined = new Map<number, number>();
  #candidates: readonly Candidate[] = [];
  #captured: Uint8Array | undefined;

  constructor(seed: number, address: string, isUdpBlocked: boolean) {
    const random = new SeededRandom(seed);
    const privateKey = new Uint8Array(32);
    random.fill(privateKey);
    this.publicKey = crypto.x25519.publicKey(privateKey);
    this.#address = ip(address);
    this.#isUdpBlocked = isUdpBlocked;
    const names = { fleet: 'lab', device: address, software: 'test' };
    this.connections = new Connections(
      { privateKey, ...names, unixMs: 1_790_000_000_000, crypto, random, log: nullLog },
      this.now,
    );
    this.connections.setLocal({ addresses: [this.#address], port: 51_820 }, this.now);
  }

  meet(other: Device): void {
    this.#other = other;
    this.connections.setPeer(0, other.publicKey, this.now);
    this.settle();
    this.#undelivered = [];
  }

  /** Is told the candidates of the other one. */
  learn(other: Device): void {
    this.signal(other.#candidates);
  }

  signal(candidates: readonly Candidate[]): void {
    const deviceKey = new Uint8Array(32).fill(9);
    this.connections.handleSignal(0, { candidates, deviceKey, isRestart: false }, this.now);
    this.settle();
  }

  receive(payload: Uint8Array, from: string): TunnelDatagram | undefined {
    const path = { fd: 3, remote: socket(from), local: this.#address };
    const datagram = this.connections.handleDatagram(
      { payload, from: socket(from), path },
      this.now,
    );
    this.settle();
    return datagram;
  }

  accept(stream: number, remote: string): void {
    const local = socket(`${this.#address}:443`);
    this.connections.handleStream(
      { type: 'accepted', stream, protocol: 'tls', local, remote: socket(remote) },
      this.now,
    );
    this.settle();
  }

  stream(stream: number, bytes: Uint8Array): void {
    this.connections.handleStream({ type: 'data', stream, bytes }, this.now);
    this.settle();
  }

  /** Opens a stream that this side dialled, as the other side's `accepted`. */
  join(other: Device, dialled: number, accepted: number): void {
    this.#joined.set(dialled, accepted);
    other.#joined.set(accepted, dialled);
    other.accept(accepted, `${this.#address}:50000`);
    const local = socket(`${this.#address}:50000`);
    this.connections.handleStream({ type: 'opened', stream: dialled, local }, this.now);
    this.settle();
  }

  move(address: string): void {
    this.#address = ip(address);
    this.connections.setLocal({ addresses: [this.#address], port: 51_820 }, this.now);
    this.settle();
  }

  /** What was sent to nobody since the last call. */
  sent(): readonly string[] {
    return this.#undelivered.splice(0);
  }

  /** A check of this device as it was on the wire. */
  capture(): Uint8Array {
    this.connections.handleNetworkChange(this.now);
    this.settle();
    if (this.#captured === undefined) throw new Error('no check was sent');
    return this.#captured.slice();
  }

  /** Lets time pass for both. */
  run(ms: number): void {
    const end = this.now + ms;
    const devices = [this, this.#other].filter((device) => device !== undefined);
    for (let steps = 0; ; steps++) {
      if (steps > 20_000) throw new Error('time does not pass');
      const deadlines = devices.map(({ connections }) => connections.pollTimeout()?.at ?? Infinity);
      const next = Math.min(...deadlines);
      if (next > end) break;
      for (const device of devices) {
        device.now = instantAt(Math.max(device.now, next));
        device.connections.handleTimeout(device.now);
        device.settle();
      }
    }
    for (const device of devices) device.now = instantAt(end);
  }

  settle(): void {
    for (;;) {
      const event = this.connections.pollEvent();
      if (event !== undefined) {
        this.#take(event);
        continue;
      }
      const sent = this.connections.pollTransmit();
      if (sent === undefined) return;
      this.#carry(sent.route.stream, sent.route.remote, sent.payload);
    }
  }

  #take(event: ConnectionsEvent): void {
    this.events.push(event);
    if (event.type === 'candidates') this.#candidates = event.candidates;
    if (event.type === 'dial') this.dials.push(event);
    if (event.type === 'hang-up') this.hungUp.push(event.stream);
    if (event.type === 'path' && event.route !== undefined) this.paths.push(event.route.remote);
    if (event.type === 'handshake-due') this.connections.handleSession(0, this.now);
  }

  #carry(stream: number | undefined, to: SocketAddress, payload: Uint8Array): void {
    const other = this.#other;
    if (stream !== undefined) {
      const theirs = this.#joined.get(stream);
      if (theirs !== undefined) other?.stream(theirs, payload);
      return;
    }
    if (payload[0] === 0) this.#captured = payload;
    const isForOther = other !== undefined && socketAddressIp(to) === other.#address;
    if (!isForOther || this.#isUdpBlocked) this.#undelivered.push(to);
    else if (other.connections.status(0) !== undefined) {
      other.receive(payload, `${this.#address}:51820`);
    }
  }
}

export function stateOf({ connections }: Device): string {
  return JSON.stringify([connections.status(0), connections.relayStatuses()]);
}

export function host(address: string): Candidate {
  return candidate(address, { transport: 'udp' });
}

export function passive(address: string): Candidate {
  return candidate(address, { transport: 'tcp', tcpType: 'passive', protocol: 'tls' });
}

function candidate(
  text: string,
  kind:
    | { readonly transport: 'udp' }
    | { readonly transport: 'tcp'; readonly tcpType: 'passive'; readonly protocol: 'tls' },
): Candidate {
  const address = socket(text);
  const family = text.startsWith('[') ? 6 : 4;
  return {
    type: 'host',
    foundation: foundationOf('host', address, kind.transport),
    priority: candidatePriority('host', kind.transport, family, 0),
    address,
    ...kind,
  };
}

function socket(text: string): SocketAddress {
  const parsed = parseSocketAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}

function ip(text: string): IpAddress {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}

export function prefix(text: string): IpPrefix {
  const parsed = parseIpPrefix(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
