import type { SocketAddress } from '../../../core/net/socket-address.ts';
import { after, instantAt, type Instant } from '../../../core/sansio/instant.ts';
import type { Crypto } from '../../../core/sansio/crypto.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { randomBytes } from '../../../core/sansio/random.ts';
import { Wireguard } from '../../../core/wireguard/wireguard.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../../plugins/crypto-node/index.ts';
import { nodeRandom } from '../../../plugins/platform-node/index.ts';
import { less, median, type Metric } from '../samples.ts';
import type { Finding } from './micro-bench.ts';

const initiate = less('initiate', 'ms');
const respond = less('respond', 'ms');
const finish = less('finish', 'ms');
const first = less('the first one of a process, both sides', 'ms');

export function handshakeSide(side: string): Metric {
  return less(`CPU of the ${side}`, 'ms');
}

const initiator = handshakeSide('initiator');
const responder = handshakeSide('responder');

export const handshakeMetrics = [initiator, responder, initiate, respond, finish, first];

/** Whole messages with MACs, cookies off, through the protocol agent of both sides. */
export function handshake(seconds: number): Finding[] {
  return [createNodeCrypto(createNobleCrypto()), createNobleCrypto()].flatMap((crypto) => {
    const pair = new Pair(crypto);
    const [firstOne, ...rest] = pair.run(Math.min(seconds, 1) * 1000);
    if (firstOne === undefined) throw new Error('no handshake was made');
    const sumOfFirst = firstOne.initiate + firstOne.respond + firstOne.finish;
    const of = (part: keyof Spent): number => median(rest.map((spent) => spent[part]));
    const [initiating, responding, finishing] = [of('initiate'), of('respond'), of('finish')];
    const values = new Map<Metric, number>([
      [initiator, initiating + finishing],
      [responder, responding],
      [initiate, initiating],
      [respond, responding],
      [finish, finishing],
      [first, sumOfFirst],
    ]);
    return Array.from(values, ([metric, value]) => ({ subject: crypto.name, metric, value }));
  });
}

/** Milliseconds. */
interface Spent {
  readonly initiate: number;
  readonly respond: number;
  readonly finish: number;
}

const [LEFT, RIGHT] = ['192.0.2.1:51820', '192.0.2.2:51820'] as SocketAddress[];
const PEER = 1;
/** Between two handshakes, so that no limit of their rate is met. */
const SPACING_MS = 10_000;

class Pair {
  readonly #left: Wireguard;
  readonly #right: Wireguard;
  #now: Instant = instantAt(0);

  constructor(crypto: Crypto) {
    const [leftKey, rightKey] = [randomBytes(nodeRandom, 32), randomBytes(nodeRandom, 32)];
    const [left, right] = [leftKey, rightKey].map((privateKey) => {
      const options = { crypto, random: nodeRandom, log: nullLog, privateKey, unixMs: 1.8e12 };
      return new Wireguard(options, this.#now);
    });
    if (left === undefined || right === undefined) throw new Error('unreachable');
    this.#left = left;
    this.#right = right;
    const settings = { persistentKeepalive: 0, rekeyAttemptTime: 90_000 };
    left.setPeer(PEER, { ...settings, publicKey: crypto.x25519.publicKey(rightKey) }, this.#now);
    right.setPeer(PEER, { ...settings, publicKey: crypto.x25519.publicKey(leftKey) }, this.#now);
    if (RIGHT !== undefined) left.setEndpoint(PEER, RIGHT, this.#now);
  }

  run(ms: number): Spent[] {
    const all: Spent[] = [];
    const end = performance.now() + ms;
    while (performance.now() < end || all.length < 2) all.push(this.#handshake());
    return all;
  }

  #handshake(): Spent {
    this.#now = after(this.#now, SPACING_MS);
    const now = this.#now;
    this.#left.handleTimeout(now);
    this.#right.handleTimeout(now);
    drain(this.#left);
    drain(this.#right);
    const started = performance.now();
    this.#left.requestHandshake(PEER, now);
    const initiation = this.#left.pollTransmit();
    const initiated = performance.now();
    if (initiation === undefined || LEFT === undefined || RIGHT === undefined) {
      throw new Error('no initiation');
    }
    this.#right.handleDatagram({ payload: initiation.payload, from: LEFT }, now);
    const response = this.#right.pollTransmit();
    const responded = performance.now();
    if (response === undefined) throw new Error('no response');
    this.#left.handleDatagram({ payload: response.payload, from: RIGHT }, now);
    const finished = performance.now();
    if (!drain(this.#left).includes('session-activated')) throw new Error('no session');
    return {
      initiate: initiated - started,
      respond: responded - initiated,
      finish: finished - responded,
    };
  }
}

/** Takes everything that waits; returns the types of the events. */
function drain(wireguard: Wireguard): string[] {
  const types: string[] = [];
  for (let event = wireguard.pollEvent(); event !== undefined; event = wireguard.pollEvent()) {
    types.push(event.type);
  }
  while (wireguard.pollTransmit() !== undefined);
  return types;
}
