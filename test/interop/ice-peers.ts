import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { IceAgent, type IceEvent, type IceRole, type PairId } from '../../core/ice/agent.ts';
import { candidatePriority, foundationOf } from '../../core/ice/candidate-priority.ts';
import type { Candidate } from '../../core/ice/candidate.ts';
import { parseIpAddress } from '../../core/net/ip-address.ts';
import {
  socketAddress,
  socketAddressIp,
  socketAddressPort,
  type SocketAddress,
} from '../../core/net/socket-address.ts';
import { instantAt, type Instant } from '../../core/sansio/instant.ts';
import { decodeStun, isStun } from '../../core/stun/message.ts';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';
import { SeededRandom } from '../sim/seeded-random.ts';

/* Our agent and one of aioice, each with real sockets on the loopback interface. */

/** Debian's own, which has Debian's packages; there may be others before it in the path. */
const PYTHON = '/usr/bin/python3';

export function isAioiceHere(): boolean {
  return spawnSync(PYTHON, ['-c', 'import aioice']).status === 0;
}

export interface Credentials {
  readonly username: string;
  readonly password: string;
  readonly candidates: readonly string[];
}

export const LOCAL = { usernameFragment: 'ours', password: 'the password of our own' };

/** Our agent with a socket for each IP version. */
export class Ours {
  readonly agent: IceAgent;
  readonly candidates: Candidate[] = [];
  readonly #sockets = new Map<string, Socket>();
  readonly #events: IceEvent[] = [];
  #onEvent: (() => void) | undefined;
  #onDatagram: ((datagram: Buffer) => void) | undefined;
  #timer: NodeJS.Timeout | undefined;

  static async start(role: IceRole, told: Credentials): Promise<Ours> {
    const ours = new Ours(role, told);
    await ours.#open('udp4', '127.0.0.1');
    await ours.#open('udp6', '::1');
    return ours;
  }

  private constructor(role: IceRole, told: Credentials) {
    const random = new SeededRandom(Date.now());
    const remote = { usernameFragment: told.username, password: told.password };
    const crypto = createNobleCrypto();
    this.agent = new IceAgent({ role, local: LOCAL, remote, random, crypto }, this.now());
  }

  now(): Instant {
    return instantAt(performance.now());
  }

  /** Resolves with the first event of this type, were it told before or not. */
  async until<T extends IceEvent['type']>(type: T): Promise<Extract<IceEvent, { type: T }>> {
    const deadline = performance.now() + 5000;
    for (;;) {
      const index = this.#events.findIndex((event) => event.type === type);
      const [event] = index < 0 ? [] : this.#events.splice(index, 1);
      if (event !== undefined) return event as Extract<IceEvent, { type: T }>;
      if (performance.now() > deadline) throw new Error(`no ${type} within 5 s`);
      const told = new Promise<void>((resolve) => (this.#onEvent = resolve));
      await Promise.race([told, wait(200)]);
    }
  }

  nextDatagram(): Promise<Buffer> {
    return new Promise((resolve) => (this.#onDatagram = resolve));
  }

  send({ base, remote }: PairId, payload: Uint8Array): void {
    const socket = this.#sockets.get(base);
    socket?.send(payload, socketAddressPort(remote), socketAddressIp(remote));
  }

  drain(): void {
    for (;;) {
      const transmit = this.agent.pollTransmit();
      if (transmit !== undefined) {
        this.send({ base: transmit.base, remote: transmit.to }, transmit.payload);
      }
      const event = this.agent.pollEvent();
      if (event !== undefined) {
        this.#events.push(event);
        this.#onEvent?.();
      }
      if (transmit === undefined && event === undefined) break;
    }
    clearTimeout(this.#timer);
    const deadline = this.agent.pollTimeout();
    if (deadline === undefined) return;
    const ms = Math.max(1, Math.ceil(deadline.at - this.now()));
    this.#timer = setTimeout(() => {
      this.agent.handleTimeout(this.now());
      this.drain();
    }, ms);
  }

  stop(): void {
    clearTimeout(this.#timer);
    for (const socket of this.#sockets.values()) socket.close();
  }

  async #open(type: 'udp4' | 'udp6', host: string): Promise<void> {
    const socket = createSocket(type);
    socket.bind(0, host);
    await once(socket, 'listening');
    const base = `udp ${host}`;
    this.#sockets.set(base, socket);
    socket.on('message', (payload, from) => this.#receive(payload, base, addressOf(from)));
    const address = addressOf(socket.address());
    const candidate: Candidate = {
      type: 'host',
      transport: 'udp',
      foundation: foundationOf('host', address, 'udp'),
      priority: candidatePriority('host', 'udp', type === 'udp4' ? 4 : 6, 0),
      address,
    };
    this.candidates.push(candidate);
    this.agent.addLocalCandidate(candidate, base, this.now());
  }

  #receive(payload: Buffer, base: string, from: SocketAddress): void {
    if (!isStun(payload)) return this.#onDatagram?.(payload);
    const decoded = decodeStun(payload);
    if (decoded.ok) this.agent.handleStun({ message: decoded.value, base, from }, this.now());
    this.drain();
  }
}

function addressOf({ address, port }: Pick<AddressInfo, 'address' | 'port'>): SocketAddress {
  const ip = parseIpAddress(address);
  if (!ip.ok) throw new Error(`${ip.why}: ${address}`);
  return socketAddress(ip.value, port);
}

/** The process of `aioice-peer.py`. */
export class Aioice {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #lines: string[] = [];
  #onLine: (() => void) | undefined;
  #errors = '';

  constructor(role: IceRole) {
    const script = fileURLToPath(new URL('aioice-peer.py', import.meta.url));
    this.#process = spawn(PYTHON, [script, role]);
    this.#process.stderr.on('data', (chunk: Buffer) => (this.#errors += chunk.toString()));
    createInterface(this.#process.stdout).on('line', (line) => {
      this.#lines.push(line);
      this.#onLine?.();
    });
  }

  get hasSpoken(): boolean {
    return this.#lines.length > 0;
  }

  tell(message: unknown): void {
    this.#process.stdin.write(`${JSON.stringify(message)}\n`);
  }

  /** Returns what it printed next. */
  async next(): Promise<unknown> {
    const deadline = performance.now() + 10_000;
    for (;;) {
      const line = this.#lines.shift();
      if (line !== undefined) return JSON.parse(line);
      if (this.#process.exitCode !== null || performance.now() > deadline) {
        throw new Error(`aioice says nothing: ${this.#errors}`);
      }
      const told = new Promise<void>((resolve) => (this.#onLine = resolve));
      await Promise.race([told, wait(200)]);
    }
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null) return;
    const ended = once(this.#process, 'exit');
    this.#process.stdin.end();
    await Promise.race([ended, wait(1000)]);
    this.#process.kill('SIGKILL');
  }
}
