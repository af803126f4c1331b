import { DEFAULTS } from '../config/defaults.ts';
import { formatConfigurationError } from '../config/error.ts';
import type { Arena } from '../fastpath/arena.ts';
import type { DesiredEvent } from '../fleet/desired-inbox.ts';
import { Connections, type TunnelDatagram } from '../connection/connections.ts';
import type { FleetDeviceOptions } from '../fleet/fleet-device.ts';
import type { DnsInput } from './names.ts';
import { Signalling } from '../fleet/signalling.ts';
import { Peering } from '../peering/peering.ts';
import type { StreamEvent } from '../plugin/streams.ts';
import { Paths } from './paths.ts';
import type { Publication } from '../plugin/control-channel.ts';
import { earliest, sooner, type Deadline } from '../sansio/agent.ts';
import type { Crypto } from '../sansio/crypto.ts';
import type { Instant } from '../sansio/instant.ts';
import { unreachable } from '../sansio/outcome.ts';
import { encodeBase64 } from '../sansio/base64.ts';
import { formatIpPrefix } from '../net/ip-prefix.ts';
import type { UapiSet, UapiState } from '../wireguard/uapi.ts';
import { Application, type ApplicationEvent, type Target } from './application.ts';
import { Assertion } from './assertion.ts';
import { Attempts } from './attempts.ts';
import type { Command } from './command.ts';
import type { EngineOptions } from './engine-options.ts';
import { Drain } from './drain.ts';
import type { Event, Failure } from './event.ts';
import { FleetLink } from './fleet-link.ts';
import type { Input } from './input.ts';
import { keepDesired } from './kept-desired.ts';
import { Peers } from './peers.ts';
import { ResourceReader } from './resource-status.ts';
import { isResourcesInput, Resources } from './resources.ts';
import type { Status } from './status.ts';
import { configurationAfterUapi, type UapiRefusal } from './uapi-configuration.ts';
import { UserspacePlane, type Transmit } from './userspace-plane.ts';

/**
 * The daemon without the world: takes inputs, batches of packets and the time; gives datagrams,
 * commands and events. See `SansIo` for the contract.
 */
export class Engine {
  /** What people see of resources, names and flows. */
  readonly resources: ResourceReader;
  readonly #crypto: Crypto;
  readonly #plane: UserspacePlane;
  readonly #fleet: FleetLink | undefined;
  readonly #application = new Application();
  readonly #attempts = new Attempts();
  readonly #assertion: Assertion;
  readonly #drain = new Drain();
  readonly #paths: Paths;
  readonly #resources: Resources;
  readonly #peers: Peers;
  readonly #events: Event[] = [];
  readonly #commands: Command[] = [];
  #privateKey: Uint8Array;
  /** base64 */
  #publicKey: string;
  #fwmark = 0;
  #phase: 'running' | 'stopped' = 'running';
  #running: Target | undefined;
  /** Whether the desired state that came last lies on flash. */
  #isKept = true;
  #listenPort = 0;
  #datagrams: readonly TunnelDatagram[] = [];
  #nextDatagram = 0;
  #lastNow: Instant;

  constructor(options: EngineOptions, now: Instant) {
    this.#crypto = options.crypto;
    this.#privateKey = options.privateKey;
    this.#publicKey = this.#publicKeyOf(options.privateKey);
    this.#lastNow = now;
    this.#assertion = new Assertion(now);
    const { fleet, keptCandidates: kept } = options;
    const own = { fleet: fleet?.fleet ?? '', device: fleet?.device ?? 'culvert' };
    const connections = new Connections({ ...options, ...own }, now);
    const peering = new Peering();
    this.#resources = new Resources(
      {
        ...options,
        peering,
        pathOf: (peer) => this.#paths.status(peer)?.kind,
      },
      now,
    );
    const { policy } = this.#resources;
    this.#plane = new UserspacePlane(
      {
        ...options,
        finder: connections,
        policy,
        onFlowFacts: (facts, at) => this.#resources.handleFacts(facts, at),
      },
      now,
    );
    this.#resources.attach(this.#plane);
    const signalling = fleet && signallingOf(fleet);
    this.#paths = new Paths({ connections, plane: this.#plane, peering, signalling, kept });
    this.#peers = new Peers(this.#plane, this.#paths);
    this.resources = new ResourceReader(this.#resources, () => this.#peers.statuses());
    this.#fleet = options.fleet === undefined ? undefined : new FleetLink(options.fleet, now);
    this.#drainChildren(now);
  }

  /** The memory that the device and the sockets share with the packet path. */
  get arena(): Arena {
    return this.#plane.arena;
  }

  /** What the control channel needs of the fleet agent to connect. */
  get fleet(): { readonly subscriptions: readonly string[]; will(): Publication } | undefined {
    const fleet = this.#fleet;
    if (fleet === undefined) return undefined;
    const subscriptions = [...fleet.subscriptions, ...this.#paths.subscriptions];
    return { subscriptions, will: () => fleet.will() };
  }

  handleInput(input: Input, now: Instant): void {
    this.#lastNow = now;
    if (this.#phase === 'stopped') return;
    if (isResourcesInput(input)) {
      this.#resources.handleInput(input, now);
      return this.#drainChildren(now);
    }
    switch (input.type) {
      case 'configuration':
        this.#apply({ configuration: input.configuration, version: undefined });
        break;
      case 'configuration-refused':
        this.#attempts.refuse(input.why);
        break;
      case 'wall-clock':
        this.#plane.handleWallClock(input.unixMs, now);
        this.#paths.handleWallClock(input.unixMs, now);
        this.#resources.handleWallClock(input.unixMs, now);
        this.#fleet?.handleInput(input, now);
        break;
      case 'control':
        this.#paths.handleControl(input.event, now);
        this.#fleet?.handleInput(input, now);
        break;
      case 'uapi-set':
        this.#onUapiSet(input.request, now);
        break;
      case 'links-changed':
        this.#assertion.handleLinksChanged(now);
        this.#paths.readAddresses();
        this.#resources.names.handleLinks();
        break;
      case 'local-addresses':
        this.#paths.setLocal({ addresses: input.addresses, port: this.#listenPort }, now);
        break;
      case 'relay-resolved':
        this.#paths.handleRelayResolved(input.relay, input.outcome, now);
        break;
      case 'streams-listening':
        this.#paths.handleStreamsListening(input.outcome);
        break;
      case 'drain':
      case 'cancel-drain':
        this.#handleDrain(input.type, now);
        break;
      case 'stop':
        this.#resources.stop(input.reason, now);
        this.#paths.stop(input.reason, now);
        this.#fleet?.handleInput(input, now);
        this.#drainChildren(now);
        this.#phase = 'stopped';
        return;
      case 'stored':
        this.#isKept = input.outcome.ok;
        break;
      case 'resolved':
        this.#onResolved(input, now);
        break;
      case 'link-applied':
        if (this.#assertion.handleApplied(input, now)) {
          this.#events.push({ type: 'link-contested' });
        }
        this.#application.handleResult(input);
        this.#resources.names.handleLinks();
        break;
      case 'device-opened':
      case 'listening':
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
    while (this.#drainPeers(now));
  }

  /** Datagrams that the socket `fd` delivered: `count` datagram records at `arena.datagrams`. */
  handleDatagrams(count: number, fd: number, now: Instant): void {
    this.#lastNow = now;
    this.#plane.handleDatagrams(count, fd, now);
    while (this.#drainPeers(now));
  }

  /** What became of a stream, and what came on it: datagrams are in frames. `handleMore` until it is false. */
  handleStream(event: StreamEvent, now: Instant): boolean {
    this.#lastNow = now;
    this.#datagrams = this.#paths.handleStream(event, now);
    this.#nextDatagram = 0;
    const hasMore = this.handleMore(now);
    this.#drainChildren(now);
    return hasMore;
  }

  /** Goes on with the datagrams of a stream after the packets were flushed; returns whether some are left. */
  handleMore(now: Instant): boolean {
    if (this.#nextDatagram >= this.#datagrams.length) return false;
    this.#nextDatagram = this.#plane.handleStreamDatagrams(
      this.#datagrams,
      this.#nextDatagram,
      now,
    );
    while (this.#drainPeers(now));
    return true;
  }

  /** A query at one of our listeners, or what became of one of ours. */
  handleDns(input: DnsInput, now: Instant): void {
    this.#lastNow = now;
    this.#resources.names.handleInput(input, now);
    this.#drainResources(now);
  }

  handleTimeout(now: Instant): void {
    this.#lastNow = now;
    if (this.#phase === 'stopped') return;
    this.#plane.handleTimeout(now);
    this.#paths.handleTimeout(now);
    this.#peers.handleTimeout(now);
    this.#resources.handleTimeout(now);
    this.#fleet?.handleTimeout(now);
    if (this.#fleet?.isStateDue(now) === true) this.#fleet.handleStatus(this.status(), now);
    const again = this.#attempts.handleTimeout(now);
    if (again !== undefined) this.#application.apply(again);
    if (this.#assertion.handleTimeout(now)) this.#application.assert();
    if (this.#drain.isDue(now)) this.#lookAtDrain(now);
    this.#drainChildren(now);
  }

  pollTransmit(): Transmit | undefined {
    return this.#plane.pollTransmit() ?? this.#paths.pollTransmit();
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
    const peers = sooner(this.#peers.pollTimeout(), this.#resources.pollTimeout());
    const tunnels = sooner(this.#plane.pollTimeout(), peers);
    const packets = earliest(tunnels, this.#paths.pollTimeout(), this.#drain.pollTimeout());
    const configuration = sooner(this.#assertion.pollTimeout(), this.#attempts.pollTimeout());
    return sooner(sooner(packets, this.#fleet?.pollTimeout()), configuration);
  }

  status(): Status {
    const own = this.#running?.configuration.interface;
    const peers = this.#peers.statuses();
    return {
      phase: this.#phaseForPeople(),
      publicKey: this.#publicKey,
      interface:
        own === undefined
          ? undefined
          : {
              name: own.name,
              listenPort: this.#listenPort,
              mtu: own.mtu,
              addresses: own.addresses.map(formatIpPrefix),
            },
      fleet: this.#fleet?.status(),
      peers,
      resources: this.resources.summary(peers),
      relays: this.#paths.relays(),
      streams: this.#paths.streams(),
      drain: this.#drain.status(this.#lastNow),
      drops: seen({ ...this.#plane.drops(), ...this.#paths.drops(), ...this.#resources.drops() }),
      lastError: this.#attempts.lastError,
    };
  }

  /** What `wg show` reads. */
  uapiState(): UapiState {
    return {
      privateKey: this.#privateKey,
      listenPort: this.#listenPort,
      fwmark: this.#fwmark,
      peers: this.#peers.uapiStates(),
    };
  }

  /** Why a `uapi-set` with this request would change nothing. */
  uapiRefusal(request: UapiSet): UapiRefusal | undefined {
    if (this.#running === undefined) return undefined;
    const wanted = configurationAfterUapi(this.#running.configuration, request);
    return wanted.ok ? undefined : wanted.why;
  }

  #publicKeyOf(privateKey: Uint8Array): string {
    return encodeBase64(this.#crypto.x25519.publicKey(privateKey));
  }

  #handleDrain(type: 'drain' | 'cancel-drain', now: Instant): void {
    const isBegin = type === 'drain';
    const isNews = isBegin ? this.#drain.begin(this.#peers.traffic(), now) : this.#drain.cancel();
    if (!isNews) return;
    this.#fleet?.handleInput({ type: isBegin ? 'drain' : 'resume' }, now);
    const peers = this.#drain.status(now)?.peers ?? [];
    this.#events.push(isBegin ? { type: 'drain-begun', peers } : { type: 'drain-cancelled' });
  }

  #lookAtDrain(now: Instant): void {
    const busy = this.#drain.status(now)?.peers ?? [];
    const connected = this.#resources.sessions.connectedPeers();
    const over = this.#drain.handleTraffic(this.#peers.traffic(), connected, now);
    if (over === undefined) return;
    this.#events.push({ type: 'drained', busy: over === 'quiet' ? [] : busy });
  }

  #onUapiSet(request: UapiSet, now: Instant): void {
    if (this.#running === undefined) return;
    const wanted = configurationAfterUapi(this.#running.configuration, request);
    if (!wanted.ok) return;
    if (request.privateKey !== undefined && request.privateKey !== 'none') {
      this.#privateKey = request.privateKey;
      this.#publicKey = this.#publicKeyOf(request.privateKey);
      this.#plane.setPrivateKey(request.privateKey, now);
      this.#paths.setPrivateKey(request.privateKey, now);
    }
    if (request.fwmark !== undefined) {
      this.#fwmark = request.fwmark;
      this.#application.setMark(request.fwmark === 0 ? undefined : request.fwmark);
    }
    this.#application.apply({ ...this.#running, configuration: wanted.value });
  }

  #onResolved(result: Extract<Input, { type: 'resolved' }>, now: Instant): void {
    const { peer, host, outcome } = result;
    this.#peers.handleAnswer({ peer, host, addresses: outcome.ok ? outcome.value : [] }, now);
  }

  #apply(target: Target): void {
    this.#attempts.begin();
    this.#application.apply(target);
  }

  /** Carries outputs of the agents inside to each other and to our own queues, until all are silent. */
  #drainChildren(now: Instant): void {
    for (;;) {
      const worked = [this.#drainFleet(), this.#drainApplication(now), this.#drainPeers(now)];
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
        this.#plane.setListening(event.listening, now);
        return this.#paths.readAddresses();
      case 'peers-due':
        return this.#useTarget(event.target, now);
      case 'finished':
        return this.#onApplied(event, now);
      default:
        return unreachable(event);
    }
  }

  #useTarget(target: Target, now: Instant): void {
    const { configuration } = target;
    const { addresses, mtu } = configuration.interface;
    const previous = this.#running?.configuration ?? {
      ...configuration,
      peers: [],
      relays: [],
      streams: { listenPort: DEFAULTS.streamListenPort, protocol: DEFAULTS.streamProtocol },
      resources: [],
      authorizations: [],
      log: { level: DEFAULTS.logLevel },
    };
    const { level } = configuration.log;
    if (level !== previous.log.level) this.#events.push({ type: 'log-level', level });
    // First: where the tunnel leads is no way to a peer, and flows are asked about again below.
    this.#paths.configure(configuration, now);
    this.#peers.change(previous, configuration, now);
    this.#resources.configure(configuration, this.#peers.all(), now);
    this.#plane.setMtu(mtu);
    this.#plane.setAddresses(addresses.map(({ address }) => address));
    this.#running = target;
  }

  #onApplied(event: Extract<ApplicationEvent, { type: 'finished' }>, now: Instant): void {
    const { target, running } = event;
    const { version, configuration } = target;
    const failures = [
      ...(version === undefined || this.#isKept ? [] : [NOT_KEPT]),
      ...(running ? this.#peers.refused : []),
      ...event.failures,
    ];
    if (version !== undefined) {
      const errors = failures.map(({ path, why }) => ({ path, message: why }));
      this.#fleet?.handleInput({ type: 'applied', version, running, errors }, now);
    }
    if (!this.#attempts.end(target, running, failures, now)) return;
    if (failures.length > 0) {
      this.#events.push({ type: 'configuration-failed', version, running, failures });
    } else {
      const peers = configuration.peers.length;
      this.#events.push({ type: 'configuration-applied', version, peers });
    }
  }

  #drainPeers(now: Instant): boolean {
    let worked = false;
    for (let event = this.#plane.pollEvent(); event; event = this.#plane.pollEvent()) {
      this.#paths.handlePlaneEvent(event, now);
      this.#peers.handlePlaneEvent(event, now);
      worked = true;
    }
    if (this.#drainPaths(now)) worked = true;
    for (let kept = this.#plane.pollKept(); kept; kept = this.#plane.pollKept()) {
      this.#resources.handleLocal(kept, now);
      worked = true;
    }
    if (this.#drainResources(now)) worked = true;
    for (let event = this.#peers.pollEvent(); event; event = this.#peers.pollEvent()) {
      if (event.type === 'peer-connected') {
        this.#resources.handlePeerConnected(event.peer, this.#peers, now);
      }
      this.#events.push(event);
      worked = true;
    }
    for (let asked = this.#peers.pollQuestion(); asked; asked = this.#peers.pollQuestion()) {
      this.#commands.push({ type: 'resolve', ...asked });
      worked = true;
    }
    return worked;
  }

  #drainResources(now: Instant): boolean {
    const resources = this.#resources;
    let worked = resources.settle(now);
    for (let event = resources.pollEvent(); event; event = resources.pollEvent()) {
      worked = true;
      if (event.type === 'event') this.#events.push(event.event);
      else if (event.type === 'send-message') this.#paths.say(event.peer, event.message, now);
      else {
        this.#paths.dismiss(event.peer, now);
        this.#peers.handleDismissed(event.peer);
      }
    }
    for (let sent = resources.pollCommand(); sent; sent = resources.pollCommand()) {
      this.#commands.push(sent);
      worked = true;
    }
    return worked;
  }

  #drainPaths(now: Instant): boolean {
    let worked = this.#paths.settle(now);
    for (let said = this.#paths.pollMessage(); said; said = this.#paths.pollMessage()) {
      this.#resources.handleMessage(said.peer, said.message, now);
      worked = true;
    }
    for (let event = this.#paths.pollEvent(); event; event = this.#paths.pollEvent()) {
      this.#handlePathEvent(event, now);
      worked = true;
    }
    for (let sent = this.#paths.pollCommand(); sent; sent = this.#paths.pollCommand()) {
      this.#commands.push(sent.type === 'dial' ? this.#marked(sent) : sent);
      worked = true;
    }
    return worked;
  }

  /** Streams keep out of the tunnel by the mark that the datagrams have. */
  #marked(dial: Extract<Command, { type: 'dial' }>): Command {
    const { stream, target } = dial;
    if (this.#fwmark === 0) return dial;
    return { type: 'dial', stream, target: { ...target, mark: this.#fwmark } };
  }

  #handlePathEvent(event: Event, now: Instant): void {
    this.#resources.handlePathEvent(event, this.#peers, now);
    if (event.type === 'connection-failed') {
      return this.#peers.handleConnectionFailed(event.peer, event.cause, now);
    }
    if (event.type === 'path-lost') return this.#peers.handlePathLost(event.peer, event.why);
    if (event.type === 'peer-left') return this.#peers.handlePeerLeft(event.peer, event.reason);
    this.#events.push(event);
  }

  #phaseForPeople(): Status['phase'] {
    if (this.#phase === 'stopped') return 'stopping';
    if (this.#drain.isOn) return 'draining';
    return this.#running === undefined ? 'waiting for configuration' : 'running';
  }
}

/** It runs, and is gone with the next restart. */
const NOT_KEPT: Failure = { path: 'desired state', why: 'not kept: the state directory is full' };

function signallingOf(fleet: FleetDeviceOptions): Signalling {
  const { crypto, signingKey } = fleet;
  return new Signalling({ ...fleet, deviceKey: crypto.ed25519.publicKey(signingKey) });
}

function seen(drops: Readonly<Record<string, number>>): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(drops).filter(([, count]) => count > 0));
}
