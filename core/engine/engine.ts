import type { PeerConfiguration } from '../config/configuration.ts';
import { DEFAULTS } from '../config/defaults.ts';
import { diffConfiguration, type ConfigChange } from '../config/diff.ts';
import type { Endpoint } from '../config/endpoint.ts';
import { formatConfigurationError } from '../config/error.ts';
import type { Arena } from '../fastpath/arena.ts';
import type { TransportCipher } from '../fastpath/cipher.ts';
import type { FastPathKernel } from '../fastpath/kernel.ts';
import type { DesiredEvent } from '../fleet/desired-inbox.ts';
import { FleetDevice, type FleetDeviceOptions } from '../fleet/fleet-device.ts';
import type { Publication } from '../plugin/control-channel.ts';
import { earliest, type Deadline } from '../sansio/agent.ts';
import type { Crypto } from '../sansio/crypto.ts';
import { after, type Instant, type Millis } from '../sansio/instant.ts';
import type { Log } from '../sansio/log.ts';
import { unreachable } from '../sansio/outcome.ts';
import type { Random } from '../sansio/random.ts';
import { encodeBase64 } from '../sansio/base64.ts';
import { formatIpPrefix } from '../net/ip-prefix.ts';
import { REKEY_ATTEMPT_TIME } from '../wireguard/constants.ts';
import type { UapiSet, UapiState } from '../wireguard/uapi.ts';
import { Application, type ApplicationEvent, type Target } from './application.ts';
import { Attempts } from './attempts.ts';
import type { Command } from './command.ts';
import { Endpoints } from './endpoints.ts';
import type { Event, Failure } from './event.ts';
import type { Input } from './input.ts';
import { keepDesired } from './kept-desired.ts';
import { PeerTable, type Peer } from './peer-table.ts';
import { deviceStateOf, peerStatusesOf, type PeerHistory, type Status } from './status.ts';
import { configurationAfterUapi } from './uapi-configuration.ts';
import { UserspacePlane, type PlaneEvent, type Transmit } from './userspace-plane.ts';

export interface EngineOptions {
  /** X25519 private key of this device. */
  readonly privateKey: Uint8Array;
  readonly unixMs: number;
  readonly crypto: Crypto;
  readonly random: Random;
  readonly kernel: FastPathKernel;
  readonly cipher: TransportCipher;
  /** `undefined` where the device stands alone. */
  readonly fleet: FleetDeviceOptions | undefined;
  readonly log: Log;
}

/** How often the fleet's copy of the state is compared with ours; `FleetDevice` sends what differs. */
const STATE_INTERVAL: Millis = 5_000;

/**
 * From a change of the network to our look at it: changes come in bursts, a look costs some dumps, and
 * an interface that was removed is being made again meanwhile.
 */
const ASSERT_DELAY: Millis = 50;

/**
 * The daemon without the world: takes inputs, batches of packets and the time; gives datagrams,
 * commands and events. See `SansIo` for the contract.
 */
export class Engine {
  readonly #crypto: Crypto;
  readonly #plane: UserspacePlane;
  readonly #fleet: FleetDevice | undefined;
  readonly #application = new Application();
  readonly #attempts = new Attempts();
  readonly #endpoints = new Endpoints();
  readonly #peers = new PeerTable();
  readonly #history = new Map<string, PeerHistory>();
  readonly #events: Event[] = [];
  readonly #commands: Command[] = [];
  #privateKey: Uint8Array;
  #fwmark = 0;
  #phase: 'running' | 'stopped' = 'running';
  #running: Target | undefined;
  /** Whether the desired state that came last lies on flash. */
  #isKept = true;
  /** Peers of the running target that the protocol refused. */
  #refused: Failure[] = [];
  #listenPort = 0;
  #broker: { readonly broker: string; readonly protocol: '5' | '3.1.1' } | undefined;
  #stateDue: Instant | undefined;
  #assertDue: Instant | undefined;
  #unix: { readonly ms: number; readonly at: Instant };
  #lastNow: Instant;

  constructor(options: EngineOptions, now: Instant) {
    this.#crypto = options.crypto;
    this.#privateKey = options.privateKey;
    this.#unix = { ms: options.unixMs, at: now };
    this.#lastNow = now;
    this.#plane = new UserspacePlane(options, now);
    this.#fleet = options.fleet === undefined ? undefined : new FleetDevice(options.fleet, now);
    this.#stateDue = this.#fleet === undefined ? undefined : after(now, STATE_INTERVAL);
    this.#drainChildren(now);
  }

  /** The memory that the device and the sockets share with the packet path. */
  get arena(): Arena {
    return this.#plane.arena;
  }

  /** What the control channel needs of the fleet agent to connect. */
  get fleet(): { readonly subscriptions: readonly string[]; will(): Publication } | undefined {
    return this.#fleet;
  }

  handleInput(input: Input, now: Instant): void {
    this.#lastNow = now;
    if (this.#phase === 'stopped') return;
    switch (input.type) {
      case 'configuration':
        this.#apply({ configuration: input.configuration, version: undefined });
        break;
      case 'configuration-refused':
        this.#attempts.refuse(input.why);
        break;
      case 'wall-clock':
        this.#unix = { ms: input.unixMs, at: now };
        this.#plane.handleWallClock(input.unixMs, now);
        this.#fleet?.handleInput(input, now);
        break;
      case 'control':
        if (input.event.type === 'connected') this.#broker = input.event;
        if (input.event.type === 'disconnected') this.#broker = undefined;
        this.#fleet?.handleInput(input, now);
        break;
      case 'uapi-set':
        this.#onUapiSet(input.request, now);
        break;
      case 'links-changed':
        this.#assertDue ??= after(now, ASSERT_DELAY);
        break;
      case 'stop':
        this.#fleet?.handleInput(input, now);
        this.#drainChildren(now);
        this.#phase = 'stopped';
        return;
      case 'stored':
        this.#isKept = input.outcome.ok;
        break;
      case 'resolved':
        this.#onResolved(input.peer, input.outcome.ok ? input.outcome.value : undefined, now);
        break;
      case 'device-opened':
      case 'listening':
      case 'link-applied':
        this.#application.handleResult(input);
        break;
      default:
        return unreachable(input);
    }
    this.#drainChildren(now);
  }

  /** Packets that the device delivered: `count` read records at `arena.reads`. */
  handlePackets(count: number, now: Instant): void {
    this.#lastNow = now;
    this.#plane.handlePackets(count, now);
    this.#drainPlane();
  }

  /** Datagrams that the socket `fd` delivered: `count` datagram records at `arena.datagrams`. */
  handleDatagrams(count: number, fd: number, now: Instant): void {
    this.#lastNow = now;
    this.#plane.handleDatagrams(count, fd, now);
    this.#drainPlane();
  }

  handleTimeout(now: Instant): void {
    this.#lastNow = now;
    if (this.#phase === 'stopped') return;
    this.#plane.handleTimeout(now);
    this.#endpoints.handleTimeout(now);
    this.#fleet?.handleTimeout(now);
    if (this.#stateDue !== undefined && this.#stateDue <= now) this.#compareState(now);
    const again = this.#attempts.handleTimeout(now);
    if (again !== undefined) this.#application.apply(again);
    if (this.#assertDue !== undefined && this.#assertDue <= now) this.#assert();
    this.#drainChildren(now);
  }

  pollTransmit(): Transmit | undefined {
    return this.#plane.pollTransmit();
  }

  pollEvent(): Event | undefined {
    return this.#events.shift();
  }

  pollCommand(): Command | undefined {
    return this.#commands.shift();
  }

  /** Returns how many send records are ready at `arena.sends`; they count as taken. */
  takeSends(): number {
    return this.#plane.takeSends();
  }

  /** Returns how many write records are ready at `arena.writes`; they count as taken. */
  takeWrites(): number {
    return this.#plane.takeWrites();
  }

  pollTimeout(): Deadline | undefined {
    if (this.#commands.length > 0 || this.#events.length > 0) {
      return { at: this.#lastNow, reason: 'queued' };
    }
    if (this.#phase === 'stopped') return undefined;
    return earliest(
      this.#plane.pollTimeout(),
      this.#endpoints.pollTimeout(),
      this.#fleet?.pollTimeout(),
      this.#stateDue === undefined ? undefined : { at: this.#stateDue, reason: 'fleet state' },
      this.#assertDue === undefined ? undefined : { at: this.#assertDue, reason: 'assert' },
      this.#attempts.pollTimeout(),
    );
  }

  status(): Status {
    const own = this.#running?.configuration.interface;
    return {
      phase: this.#phaseForPeople(),
      publicKey: encodeBase64(this.#crypto.x25519.publicKey(this.#privateKey)),
      interface:
        own === undefined
          ? undefined
          : {
              name: own.name,
              listenPort: this.#listenPort,
              mtu: own.mtu,
              addresses: own.addresses.map(formatIpPrefix),
            },
      fleet: this.#fleetStatus(),
      peers: peerStatusesOf(this.#peers.all(), this.#plane, this.#history),
      drops: seen(this.#plane.drops()),
      lastError: this.#attempts.lastError,
    };
  }

  /** What `wg show` reads. */
  uapiState(): UapiState {
    return {
      privateKey: this.#privateKey,
      listenPort: this.#listenPort,
      fwmark: this.#fwmark,
      peers: [...this.#peers.all()].map(({ index, configuration }) => {
        const tunnel = this.#plane.peerStatus(index);
        const { rxBytes, txBytes } = this.#plane.counters(index);
        return {
          publicKey: configuration.publicKey,
          presharedKey: configuration.presharedKey,
          endpoint: tunnel?.endpoint,
          persistentKeepalive: configuration.keepalive,
          allowedIps: configuration.allowedIps,
          lastHandshakeUnixMs: tunnel?.lastHandshakeUnixMs,
          rxBytes,
          txBytes,
        };
      }),
    };
  }

  #onUapiSet(request: UapiSet, now: Instant): void {
    if (this.#running === undefined) return;
    if (request.privateKey !== undefined && request.privateKey !== 'none') {
      this.#privateKey = request.privateKey;
      this.#plane.setPrivateKey(request.privateKey, now);
    }
    if (request.fwmark !== undefined) {
      this.#fwmark = request.fwmark;
      this.#application.setMark(request.fwmark === 0 ? undefined : request.fwmark);
    }
    const configuration = configurationAfterUapi(this.#running.configuration, request);
    this.#application.apply({ ...this.#running, configuration });
  }

  #assert(): void {
    this.#assertDue = undefined;
    this.#application.assert();
  }

  #apply(target: Target): void {
    this.#attempts.begin();
    this.#application.apply(target);
  }

  #onResolved(id: string, addresses: Parameters<Endpoints['handleAnswer']>[1], now: Instant): void {
    const endpoint = this.#endpoints.handleAnswer(id, addresses, now);
    const peer = this.#peers.byId(id);
    if (endpoint === undefined || peer === undefined) return;
    this.#plane.setEndpoint(peer.index, endpoint, now);
  }

  #compareState(now: Instant): void {
    this.#stateDue = after(now, STATE_INTERVAL);
    if (this.#broker === undefined) return;
    const unixMs = this.#unix.ms + (now - this.#unix.at);
    const state = deviceStateOf(this.status(), unixMs);
    this.#fleet?.handleInput({ type: 'state', state }, now);
  }

  /** Carries outputs of the agents inside to each other and to our own queues, until all are silent. */
  #drainChildren(now: Instant): void {
    for (;;) {
      const worked = [
        this.#drainFleet(),
        this.#drainApplication(now),
        this.#drainPlane(),
        this.#drainQuestions(),
      ];
      if (!worked.includes(true)) return;
    }
  }

  #drainFleet(): boolean {
    let worked = false;
    for (let event = this.#fleet?.pollEvent(); event; event = this.#fleet?.pollEvent()) {
      this.#onDesired(event);
      worked = true;
    }
    for (let sent = this.#fleet?.pollTransmit(); sent; sent = this.#fleet?.pollTransmit()) {
      this.#commands.push({ type: 'publish', publication: sent });
      worked = true;
    }
    return worked;
  }

  #onDesired(event: DesiredEvent): void {
    if (event.type === 'refused') {
      const { version, why } = event;
      const errors = event.errors.map(formatConfigurationError);
      this.#attempts.refuse(`desired state refused: ${[why, ...errors].join('; ')}`);
      this.#events.push({ type: 'desired-refused', version, why, errors });
      return;
    }
    this.#commands.push(keepDesired(event));
    this.#apply({ configuration: event.configuration, version: event.version });
  }

  #drainApplication(now: Instant): boolean {
    let worked = false;
    for (let event = this.#application.pollEvent(); event; event = this.#application.pollEvent()) {
      this.#onApplication(event, now);
      worked = true;
    }
    for (let sent = this.#application.pollCommand(); sent; sent = this.#application.pollCommand()) {
      this.#commands.push(sent);
      worked = true;
    }
    return worked;
  }

  #onApplication(event: ApplicationEvent, now: Instant): void {
    switch (event.type) {
      case 'device-opened':
        return this.#plane.setOffloads(event.offloads);
      case 'listening':
        this.#listenPort = event.listening.port;
        return this.#plane.setListening(event.listening, now);
      case 'peers-due':
        return this.#changePeers(event.target, now);
      case 'finished':
        return this.#onApplied(event, now);
      default:
        return unreachable(event);
    }
  }

  #changePeers(target: Target, now: Instant): void {
    const { configuration } = target;
    if (target !== this.#running) this.#refused = [];
    const previous = this.#running?.configuration ?? {
      ...configuration,
      peers: [],
      log: { level: DEFAULTS.logLevel },
    };
    for (const change of diffConfiguration(previous, configuration)) this.#onChange(change, now);
    this.#plane.setMtu(configuration.interface.mtu);
    this.#plane.setAddresses(configuration.interface.addresses.map(({ address }) => address));
    this.#plane.setAllowedIps(
      [...this.#peers.all()].map((peer) => [peer.index, peer.configuration.allowedIps] as const),
    );
    this.#running = target;
  }

  #onChange(change: ConfigChange, now: Instant): void {
    switch (change.type) {
      case 'peer-removed':
        return this.#removePeer(change.peer.id, now);
      case 'peer-added':
        return this.#setPeer(change.peer, change.peer.endpoint, now);
      case 'peer-changed':
        // A peer that roamed keeps its place unless the configuration names another one.
        return this.#setPeer(
          change.peer,
          change.fields.includes('endpoint') ? change.peer.endpoint : undefined,
          now,
        );
      case 'interface-changed':
        return;
      case 'log-changed':
        this.#events.push({ type: 'log-level', level: change.log.level });
        return;
      default:
        return unreachable(change);
    }
  }

  #setPeer(configuration: PeerConfiguration, endpoint: Endpoint | undefined, now: Instant): void {
    const { id, publicKey, presharedKey, keepalive } = configuration;
    const peer = this.#peers.set(configuration);
    const address = endpoint === undefined ? undefined : this.#endpoints.set(id, endpoint);
    const outcome = this.#plane.setPeer(
      peer.index,
      {
        publicKey,
        ...(presharedKey === undefined ? {} : { presharedKey }),
        ...(address === undefined ? {} : { endpoint: address }),
        persistentKeepalive: keepalive,
        rekeyAttemptTime: REKEY_ATTEMPT_TIME,
      },
      now,
    );
    if (outcome.ok) return;
    this.#refused.push({ path: `peers '${id}' publicKey`, why: outcome.why });
    this.#removePeer(id, now);
  }

  #removePeer(id: string, now: Instant): void {
    const removed = this.#peers.remove(id);
    this.#endpoints.remove(id);
    this.#history.delete(id);
    if (removed !== undefined) this.#plane.removePeer(removed.index, now);
  }

  #onApplied(event: Extract<ApplicationEvent, { type: 'finished' }>, now: Instant): void {
    const { target, running } = event;
    const { version, configuration } = target;
    const failures = [
      ...(version === undefined || this.#isKept ? [] : [NOT_KEPT]),
      ...(running ? this.#refused : []),
      ...event.failures,
    ];
    if (version !== undefined) {
      const errors = failures.map(({ path, why }) => ({ path, message: why }));
      this.#fleet?.handleInput({ type: 'applied', version, errors }, now);
    }
    if (!this.#attempts.end(target, running, failures, now)) return;
    if (failures.length > 0) {
      this.#events.push({ type: 'configuration-failed', version, running, failures });
    } else {
      const peers = configuration.peers.length;
      this.#events.push({ type: 'configuration-applied', version, peers });
    }
  }

  #drainPlane(): boolean {
    for (let worked = false; ; worked = true) {
      const event = this.#plane.pollEvent();
      if (event === undefined) return worked;
      const peer = this.#peers.byIndex(event.peer);
      if (peer !== undefined) this.#onPlane(event, peer);
    }
  }

  #onPlane(event: PlaneEvent, peer: Peer): void {
    const { id } = peer.configuration;
    switch (event.type) {
      case 'handshake-completed':
        return this.#onHandshake(id, event.tookMs);
      case 'handshake-failed':
        this.#history.set(id, { ...this.#history.get(id), cause: event.cause });
        this.#endpoints.handleSilence(id);
        this.#events.push({ type: 'peer-failed', peer: id, cause: event.cause });
        return;
      case 'endpoint-changed':
        this.#events.push({ type: 'endpoint-changed', peer: id, endpoint: event.endpoint });
        return;
      default:
        return unreachable(event);
    }
  }

  #phaseForPeople(): Status['phase'] {
    if (this.#phase === 'stopped') return 'stopping';
    return this.#running === undefined ? 'waiting for configuration' : 'running';
  }

  #fleetStatus(): Status['fleet'] {
    if (this.#fleet === undefined) return undefined;
    const { fleet, device } = this.#fleet.identity;
    return {
      fleet,
      device,
      broker: this.#broker?.broker,
      protocol: this.#broker?.protocol,
      version: this.#fleet.report.appliedVersion,
    };
  }

  /** A session that only replaces the one before is no news. */
  #onHandshake(id: string, handshakeMs: Millis): void {
    const before = this.#history.get(id);
    this.#history.set(id, { handshakeMs });
    if (before === undefined || before.cause !== undefined) {
      this.#events.push({ type: 'peer-connected', peer: id, handshakeMs });
    }
  }

  #drainQuestions(): boolean {
    for (let worked = false; ; worked = true) {
      const question = this.#endpoints.pollQuestion();
      if (question === undefined) return worked;
      this.#commands.push({ type: 'resolve', ...question });
    }
  }
}

/** It runs, and is gone with the next restart. */
const NOT_KEPT: Failure = { path: 'desired state', why: 'not kept: the state directory is full' };

function seen(drops: Readonly<Record<string, number>>): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(drops).filter(([, count]) => count > 0));
}
