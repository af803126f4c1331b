import { ipFamily, type IpAddress, type IpFamily } from '../../core/net/ip-address.ts';
import {
  socketAddress,
  socketAddressIp,
  type SocketAddress,
} from '../../core/net/socket-address.ts';
import { encodeBase64 } from '../../core/sansio/base64.ts';
import type { Crypto } from '../../core/sansio/crypto.ts';
import { after, type Instant, type Millis } from '../../core/sansio/instant.ts';
import {
  decodeStun,
  encodeStun,
  isStun,
  type ReceivedStun,
  type StunAttributes,
} from '../../core/stun/message.ts';
import type { Host, UdpSocket } from './host.ts';
import type { SeededRandom } from './seeded-random.ts';

export const TURN_PORT = 3478;
const REALM = 'simulated';
const SECOND: Millis = 1_000;
/** RFC 8656 §7.2. */
const DEFAULT_LIFETIME = 600;
const LONGEST_LIFETIME = 3_600;
/** RFC 8656 §9 and §12. */
const PERMISSION_LIFETIME: Millis = 300 * SECOND;
const CHANNEL_LIFETIME: Millis = 600 * SECOND;
const FIRST_RELAY_PORT = 49_152;
const UDP = 17;

export interface TurnServerOptions {
  readonly host: Host;
  readonly random: SeededRandom;
  readonly crypto: Pick<Crypto, 'hmacSha1' | 'md5'>;
  /** Who may allocate: names and passwords, or a secret from which names that expire are made. */
  readonly users: ReadonlyMap<string, string> | { readonly secret: string };
  /** Allocations in all (508) and of one user (486). */
  readonly capacity?: number;
  readonly quota?: number;
  /** Peers that get 403. */
  readonly forbids?: (peer: IpAddress) => boolean;
  readonly nonceLifetime?: Millis;
}

/** A client: a UDP address, or a stream. */
interface Client {
  readonly id: string;
  readonly address: SocketAddress;
  send(bytes: Uint8Array): void;
  /** Ends a stream. */
  close(): void;
}

interface Allocation {
  readonly client: Client;
  readonly user: string;
  readonly sockets: ReadonlyMap<IpFamily, UdpSocket>;
  readonly relayed: readonly SocketAddress[];
  /** Of the request that made it, to answer a repetition alike. */
  readonly transaction: string;
  readonly permissions: Map<IpAddress, Instant>;
  readonly channels: Map<number, Channel>;
  expiresAt: Instant;
}

interface Channel {
  readonly peer: SocketAddress;
  expiresAt: Instant;
}

/** What a request came to: attributes of a success, or an error with its code. */
type Answer =
  | { readonly attributes: StunAttributes }
  | { readonly code: number; readonly attributes?: StunAttributes };

/** A server of RFC 8489 and RFC 8656, made from their text; of our own code it shares the STUN codec. */
export class TurnServer {
  readonly counts = { binding: 0, allocated: 0, relayedBytes: 0, dropped: 0 };
  readonly #options: TurnServerOptions;
  readonly #host: Host;
  readonly #allocations = new Map<string, Allocation>();
  readonly #streams = new Map<string, Client>();
  #nonces = new Map<string, Instant>();
  #socket: UdpSocket | undefined;
  #nextPort = FIRST_RELAY_PORT;

  constructor(options: TurnServerOptions) {
    this.#options = options;
    this.#host = options.host;
    this.start();
  }

  address(family: IpFamily): SocketAddress | undefined {
    const ip = this.#host.address(family);
    return ip === undefined ? undefined : socketAddress(ip, TURN_PORT);
  }

  get isRunning(): boolean {
    return this.#socket !== undefined;
  }

  get allocations(): number {
    for (const allocation of this.#allocations.values()) this.#expire(allocation);
    return this.#allocations.size;
  }

  start(): void {
    this.#socket ??= this.#host.listen(TURN_PORT, (from, _to, payload) => {
      const send = (bytes: Uint8Array): void => this.#socket?.send(from, bytes);
      this.#receive({ id: `udp ${from}`, address: from, send, close: () => undefined }, payload);
    });
  }

  /** Goes down, and forgets everything. */
  stop(): void {
    for (const allocation of this.#allocations.values()) this.#delete(allocation);
    this.#nonces = new Map();
    for (const stream of this.#streams.values()) stream.close();
    this.#streams.clear();
    this.#socket?.close();
    this.#socket = undefined;
  }

  /** Comes back at once with nothing known of before: allocations, nonces, streams. */
  reboot(): void {
    this.stop();
    this.start();
  }

  /** A stream was accepted. Bytes of messages go to `receive` in pieces of any size. */
  accept(client: SocketAddress, stream: { send(bytes: Uint8Array): void; close(): void }) {
    const id = `stream ${client}`;
    const known: Client = { id, address: client, ...stream };
    this.#streams.set(id, known);
    let waiting = new Uint8Array(0);
    return {
      receive: (bytes: Uint8Array): void => {
        waiting = Buffer.concat([waiting, bytes]);
        for (;;) {
          const length = lengthInStream(waiting);
          if (length === undefined || waiting.length < length) return;
          if (this.#streams.get(id) === known) this.#receive(known, waiting.slice(0, length));
          waiting = waiting.slice(length);
        }
      },
      close: (): void => {
        const allocation = this.#allocations.get(id);
        if (allocation?.client === known) this.#delete(allocation);
        this.#streams.delete(id);
      },
    };
  }

  #receive(client: Client, bytes: Uint8Array): void {
    if (!isStun(bytes)) return this.#receiveChannelData(client, bytes);
    const decoded = decodeStun(bytes);
    if (!decoded.ok) return void this.counts.dropped++;
    const message = decoded.value;
    if (message.class === 'indication') return this.#receiveIndication(client, message);
    if (message.class === 'request') this.#answer(client, message);
  }

  #answer(client: Client, request: ReceivedStun): void {
    if (request.unknownRequired.length > 0) {
      const attributes = { unknownAttributes: request.unknownRequired };
      return this.#reply(client, request, { code: 420, attributes });
    }
    if (request.method === 'binding') {
      this.counts.binding++;
      return this.#reply(client, request, { attributes: { xorMappedAddress: client.address } });
    }
    const proof = this.#authenticate(request);
    if ('code' in proof) return this.#reply(client, request, proof);
    this.#reply(client, request, this.#serve(client, request, proof.user), proof.key);
  }

  /** RFC 8489 §9.2.4. */
  #authenticate(
    request: ReceivedStun,
  ): (Answer & { code: number }) | { user: string; key: Uint8Array } {
    const { username, realm, nonce } = request.attributes;
    const { crypto } = this.#options;
    if (!request.hasIntegrity) return this.#challenge(401);
    if (username === undefined || realm === undefined || nonce === undefined) return { code: 400 };
    const expiry = this.#nonces.get(nonce);
    if (expiry === undefined || expiry <= this.#now) return this.#challenge(438);
    const password = this.#passwordOf(username);
    if (password === undefined) return this.#challenge(401);
    const key = crypto.md5(Buffer.from(`${username}:${REALM}:${password}`));
    if (!request.hasValidIntegrity(key, crypto)) return this.#challenge(401);
    return { user: username, key };
  }

  #challenge(code: 401 | 438) {
    const bytes = new Uint8Array(12);
    this.#options.random.fill(bytes);
    const nonce = Buffer.from(bytes).toString('hex');
    this.#nonces.set(nonce, after(this.#now, this.#options.nonceLifetime ?? 600 * SECOND));
    return { code, attributes: { realm: REALM, nonce } };
  }

  /** A name that expires is `seconds:id`; its password is made from the secret. */
  #passwordOf(username: string): string | undefined {
    const { users, crypto } = this.#options;
    if (!('secret' in users)) return users.get(username);
    const expiry = Number(username.split(':')[0]);
    if (!(expiry * SECOND > this.#host.unixMs)) return undefined;
    return encodeBase64(crypto.hmacSha1(Buffer.from(users.secret), Buffer.from(username)));
  }

  #serve(client: Client, request: ReceivedStun, user: string): Answer {
    if (request.method === 'allocate') return this.#allocate(client, request, user);
    const allocation = this.#allocationOf(client);
    if (allocation === undefined) return { code: 437 };
    if (allocation.user !== user) return { code: 441 };
    const { method, attributes } = request;
    if (method === 'refresh') return this.#refresh(allocation, attributes);
    if (method === 'create-permission') return this.#createPermission(allocation, attributes);
    if (method === 'channel-bind') return this.#bindChannel(allocation, attributes);
    return { code: 400 };
  }

  /** RFC 8656 §7.2. */
  #allocate(client: Client, request: ReceivedStun, user: string): Answer {
    const { attributes } = request;
    const transaction = Buffer.from(request.transactionId).toString('hex');
    const known = this.#allocationOf(client);
    if (known !== undefined) {
      return known.transaction === transaction ? this.#describe(known) : { code: 437 };
    }
    const { requestedTransport, requestedAddressFamily, additionalAddressFamily } = attributes;
    if (requestedTransport === undefined) return { code: 400 };
    if (requestedTransport !== UDP) return { code: 442 };
    const isBoth = requestedAddressFamily !== undefined && additionalAddressFamily !== undefined;
    if (isBoth || additionalAddressFamily === 4) return { code: 400 };
    const first = requestedAddressFamily ?? 4;
    if (this.#host.address(first) === undefined) return { code: 440 };
    const ofUser = [...this.#allocations.values()].filter((other) => other.user === user);
    if (ofUser.length >= (this.#options.quota ?? Infinity)) return { code: 486 };
    if (this.allocations >= (this.#options.capacity ?? Infinity)) return { code: 508 };
    const wanted = additionalAddressFamily === undefined ? [first] : [first, 6 as const];
    const families = wanted.filter((family) => this.#host.address(family) !== undefined);
    const seconds = lifetimeOf(attributes.lifetime);
    const allocation = this.#make(client, user, transaction, families, seconds);
    const answer = this.#describe(allocation);
    if (families.length === wanted.length) return answer;
    const addressErrorCode = { family: 6, code: 440, reason: 'no IPv6' } as const;
    return { attributes: { ...answer.attributes, addressErrorCode } };
  }

  #make(
    client: Client,
    user: string,
    transaction: string,
    families: readonly IpFamily[],
    seconds: number,
  ): Allocation {
    const sockets = new Map<IpFamily, UdpSocket>();
    const relayed: SocketAddress[] = [];
    for (const family of families) {
      const socket = this.#host.listen(this.#nextPort++, (from, to, payload) => {
        if (ipFamily(socketAddressIp(to)) === family) this.#relayBack(allocation, from, payload);
      });
      sockets.set(family, socket);
      const ip = this.#host.address(family);
      if (ip !== undefined) relayed.push(socketAddress(ip, socket.port));
    }
    const allocation: Allocation = {
      client,
      user,
      sockets,
      relayed,
      transaction,
      permissions: new Map(),
      channels: new Map(),
      expiresAt: after(this.#now, seconds * SECOND),
    };
    this.#allocations.set(client.id, allocation);
    this.counts.allocated++;
    return allocation;
  }

  #describe({ client, relayed, expiresAt }: Allocation) {
    const lifetime = Math.floor((expiresAt - this.#now) / SECOND);
    const xorMappedAddress = client.address;
    return { attributes: { xorRelayedAddresses: relayed, xorMappedAddress, lifetime } };
  }

  /** RFC 8656 §8.2. */
  #refresh(allocation: Allocation, attributes: StunAttributes): Answer {
    const { requestedAddressFamily: family } = attributes;
    if (family !== undefined && !allocation.sockets.has(family)) return { code: 443 };
    const lifetime = attributes.lifetime === 0 ? 0 : lifetimeOf(attributes.lifetime);
    allocation.expiresAt = after(this.#now, lifetime * SECOND);
    if (lifetime === 0) this.#delete(allocation);
    return { attributes: { lifetime } };
  }

  /** RFC 8656 §10.2: all of the peers or none. */
  #createPermission(allocation: Allocation, { xorPeerAddresses }: StunAttributes): Answer {
    if (xorPeerAddresses === undefined) return { code: 400 };
    for (const peer of xorPeerAddresses) {
      const refused = this.#refusal(allocation, peer);
      if (refused !== undefined) return { code: refused };
    }
    for (const peer of xorPeerAddresses) this.#permit(allocation, peer);
    return { attributes: {} };
  }

  /** RFC 8656 §12.2. */
  #bindChannel(allocation: Allocation, attributes: StunAttributes): Answer {
    const { channelNumber: number, xorPeerAddresses } = attributes;
    const peer = xorPeerAddresses?.[0];
    if (number === undefined || peer === undefined || number < 0x4000 || number > 0x4fff) {
      return { code: 400 };
    }
    const bound = this.#channel(allocation, number);
    if (bound !== undefined && bound.peer !== peer) return { code: 400 };
    const other = this.#channelTo(allocation, peer);
    if (other !== undefined && other !== number) return { code: 400 };
    const refused = this.#refusal(allocation, peer);
    if (refused !== undefined) return { code: refused };
    allocation.channels.set(number, { peer, expiresAt: after(this.#now, CHANNEL_LIFETIME) });
    this.#permit(allocation, peer);
    return { attributes: {} };
  }

  #refusal(allocation: Allocation, peer: SocketAddress): 403 | 443 | undefined {
    const ip = socketAddressIp(peer);
    if (!allocation.sockets.has(ipFamily(ip))) return 443;
    return this.#options.forbids?.(ip) === true ? 403 : undefined;
  }

  #permit(allocation: Allocation, peer: SocketAddress): void {
    allocation.permissions.set(socketAddressIp(peer), after(this.#now, PERMISSION_LIFETIME));
  }

  #isPermitted(allocation: Allocation, peer: SocketAddress): boolean {
    return (allocation.permissions.get(socketAddressIp(peer)) ?? 0) > this.#now;
  }

  #channel(allocation: Allocation, number: number): Channel | undefined {
    const channel = allocation.channels.get(number);
    if (channel === undefined || channel.expiresAt > this.#now) return channel;
    allocation.channels.delete(number);
    return undefined;
  }

  #channelTo(allocation: Allocation, peer: SocketAddress): number | undefined {
    for (const [number, channel] of allocation.channels) {
      if (channel.peer === peer && this.#channel(allocation, number)) return number;
    }
    return undefined;
  }

  /** RFC 8656 §11.2: a Send indication. */
  #receiveIndication(client: Client, { method, attributes }: ReceivedStun): void {
    const allocation = this.#allocationOf(client);
    const { data } = attributes;
    const peer = attributes.xorPeerAddresses?.[0];
    if (method !== 'send' || allocation === undefined || peer === undefined || data === undefined) {
      return void this.counts.dropped++;
    }
    if (!this.#isPermitted(allocation, peer)) return void this.counts.dropped++;
    this.#relay(allocation, peer, data);
  }

  /** RFC 8656 §12.6. */
  #receiveChannelData(client: Client, bytes: Uint8Array): void {
    const allocation = this.#allocationOf(client);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (allocation === undefined || bytes.length < 4) return void this.counts.dropped++;
    const channel = this.#channel(allocation, view.getUint16(0));
    const end = 4 + view.getUint16(2);
    if (channel === undefined || end > bytes.length) return void this.counts.dropped++;
    this.#relay(allocation, channel.peer, bytes.subarray(4, end));
  }

  #relay(allocation: Allocation, peer: SocketAddress, data: Uint8Array): void {
    this.counts.relayedBytes += data.length;
    allocation.sockets.get(ipFamily(socketAddressIp(peer)))?.send(peer, data.slice());
  }

  /** A datagram from a peer (RFC 8656 §11.3, §12.7). */
  #relayBack(allocation: Allocation, peer: SocketAddress, payload: Uint8Array): void {
    if (this.#expire(allocation) || !this.#isPermitted(allocation, peer)) {
      return void this.counts.dropped++;
    }
    this.counts.relayedBytes += payload.length;
    const { client } = allocation;
    const number = this.#channelTo(allocation, peer);
    if (number === undefined) {
      const transactionId = new Uint8Array(12);
      this.#options.random.fill(transactionId);
      const attributes = { xorPeerAddresses: [peer], data: payload };
      const message = { class: 'indication', method: 'data', transactionId, attributes } as const;
      client.send(encodeStun(message, { crypto: this.#options.crypto }));
      return;
    }
    const isStream = this.#streams.has(client.id);
    const length = isStream ? Math.ceil(payload.length / 4) * 4 : payload.length;
    const bytes = new Uint8Array(4 + length);
    new DataView(bytes.buffer).setUint32(0, number * 0x10000 + payload.length);
    bytes.set(payload, 4);
    client.send(bytes);
  }

  #allocationOf(client: Client): Allocation | undefined {
    const allocation = this.#allocations.get(client.id);
    return allocation === undefined || this.#expire(allocation) ? undefined : allocation;
  }

  /** Returns whether the allocation is over. */
  #expire(allocation: Allocation): boolean {
    if (allocation.expiresAt > this.#now) return false;
    this.#delete(allocation);
    return true;
  }

  #delete(allocation: Allocation): void {
    for (const socket of allocation.sockets.values()) socket.close();
    const { id } = allocation.client;
    if (this.#allocations.get(id) === allocation) this.#allocations.delete(id);
  }

  #reply(client: Client, request: ReceivedStun, answer: Answer, key?: Uint8Array): void {
    const { method, transactionId } = request;
    const isError = 'code' in answer;
    const errorCode = isError
      ? { code: answer.code, reason: REASONS.get(answer.code) ?? '' }
      : undefined;
    const attributes = {
      ...answer.attributes,
      ...(errorCode && { errorCode }),
      software: 'simulated TURN',
    };
    const message = {
      class: isError ? 'error' : 'success',
      method,
      transactionId,
      attributes,
    } as const;
    const { crypto } = this.#options;
    client.send(encodeStun(message, { crypto, ...(key && { integrityKey: key }) }));
  }

  get #now(): Instant {
    return this.#host.timeline.now;
  }
}

const REASONS: ReadonlyMap<number, string> = new Map([
  [400, 'Bad Request'],
  [401, 'Unauthenticated'],
  [403, 'Forbidden'],
  [420, 'Unknown Attribute'],
  [437, 'Allocation Mismatch'],
  [438, 'Stale Nonce'],
  [440, 'Address Family not Supported'],
  [441, 'Wrong Credentials'],
  [442, 'Unsupported Transport Protocol'],
  [443, 'Peer Address Family Mismatch'],
  [486, 'Allocation Quota Reached'],
  [508, 'Insufficient Capacity'],
]);

/** RFC 8656 §7.2: what is asked for, within limits. */
function lifetimeOf(wanted: number | undefined): number {
  return Math.min(Math.max(wanted ?? 0, DEFAULT_LIFETIME), LONGEST_LIFETIME);
}

/** RFC 8656 §12.5: in a stream ChannelData is padded to four bytes. */
function lengthInStream(bytes: Uint8Array): number | undefined {
  if (bytes.length < 4) return undefined;
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint16(2);
  return (bytes[0] ?? 0) < 0x40 ? 20 + length : 4 + Math.ceil(length / 4) * 4;
}
