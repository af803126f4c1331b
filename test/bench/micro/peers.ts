import {
  DATAGRAM_LENGTH,
  DATAGRAM_OFFSET,
  DATAGRAM_SEGMENT,
  DATAGRAM_SIZE,
  LARGEST_TRAIN,
  MOST_TRAINS,
  READ_LENGTH,
  READ_OFFSET,
  READ_SIZE,
  SEND_LENGTH,
  SEND_OFFSET,
  SEND_SIZE,
  VNET_HEADER_SIZE,
} from '../../../core/fastpath/layout.ts';
import { PacketPath, type Path } from '../../../core/fastpath/packet-path.ts';
import { writeSource } from '../../../core/fastpath/path.ts';
import { parseSocketAddress, type SocketAddress } from '../../../core/net/socket-address.ts';
import { buildIpPacket } from '../../../core/packet/build-ip-packet.ts';
import { after, instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { nullLog } from '../../../core/sansio/log.ts';
import { randomBytes } from '../../../core/sansio/random.ts';
import { Wireguard } from '../../../core/wireguard/wireguard.ts';
import { createFastPath } from '../../../openwrt/fast-path.ts';
import { createNobleCrypto } from '../../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../../plugins/crypto-node/index.ts';
import { nodeRandom } from '../../../plugins/platform-node/index.ts';
import { less, more } from '../samples.ts';
import { idleConnectionKilobytes } from './connections.ts';
import { sink, timePerCall, type Finding } from './micro-bench.ts';

const sending = more('send 64 bytes, to peers in turn', 'packets/s');
const receiving = more('receive 64 bytes, from peers in turn', 'packets/s');
const nextDeadline = less('ask for the next deadline', 'ns');
const keepalives = less('keepalives of 60 s', 'ms');
const reading = less('read the status of all', 'ms');
export const connectionMemory = less('idle connection of a Culvert peer', 'KB');

export const peerMetrics = [
  sending,
  receiving,
  nextDeadline,
  keepalives,
  reading,
  connectionMemory,
];

/** The packet path and the protocol with one peer and with many. */
export function peers(seconds: number): Finding[] {
  const kilobytes = idleConnectionKilobytes();
  const findings: Finding[] = [1, 1000].flatMap((count) => {
    const subject = count === 1 ? '1 peer' : `${count.toLocaleString('en')} peers`;
    const packets = new PacketLoop(count).run(Math.min(seconds, 1) * 1000);
    const hub = new Hub(count);
    const asked = timePerCall(0.2, () => (sink.value = hub.wireguard.pollTimeout()));
    const read = timePerCall(0.2, () => hub.readStatus());
    return [
      { subject, metric: sending, value: packets.sent },
      { subject, metric: receiving, value: packets.received },
      { subject, metric: nextDeadline, value: asked * 1e6 },
      { subject, metric: reading, value: read },
      { subject, metric: keepalives, value: hub.pass(60_000) },
    ];
  });
  return [...findings, { subject: '1 peer', metric: connectionMemory, value: kilobytes }];
}

const crypto = createNodeCrypto(createNobleCrypto());

/** What it sends comes back to it, in datagrams of their own. */
class PacketLoop {
  readonly #path: PacketPath;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #packets: readonly Uint8Array[];
  readonly #home: Path;
  #next = 0;

  constructor(count: number) {
    const { kernel, cipher } = createFastPath(crypto, 'wasm-simd');
    this.#view = new DataView(kernel.memory);
    this.#bytes = new Uint8Array(kernel.memory);
    this.#path = new PacketPath({
      kernel,
      cipher,
      mtu: 1408,
      log: nullLog,
      policy: {
        outbound: ({ destination: [, , high = 0, low = 0] }) => ({
          type: 'forward',
          peer: (high << 8) | low,
        }),
        inbound: (peer) => ({ type: 'forward', peer }),
      },
    });
    this.#home = { fd: 3, remote: socketAddress('192.0.2.1:51820') };
    for (let peer = 0; peer < count; peer++) {
      const localIndex = peer << 8;
      const [sendKey, receiveKey] = [new Uint8Array(32).fill(peer), new Uint8Array(32).fill(peer)];
      const keys = { peer, localIndex, remoteIndex: localIndex, sendKey, receiveKey };
      this.#path.installSession(keys);
      this.#path.setPath(peer, this.#home);
      this.#path.activateSession(peer, localIndex);
    }
    this.#packets = Array.from({ length: count }, (_, peer) => packetTo(peer));
  }

  /** Packets a second, each way. */
  run(ms: number): { readonly sent: number; readonly received: number } {
    this.#measure(Math.min(ms, 200));
    return this.#measure(ms);
  }

  #measure(ms: number): { readonly sent: number; readonly received: number } {
    const spent = { sending: 0, receiving: 0 };
    let sent = 0;
    let received = 0;
    for (const end = performance.now() + ms; performance.now() < end;) {
      const count = this.#layReads();
      const started = performance.now();
      this.#path.outbound(count, NOW);
      const sends = this.#path.takeSends();
      spent.sending += performance.now() - started;
      sent += count;
      const datagrams = this.#takeDatagrams(sends);
      for (let first = 0; first < datagrams.length; first += MOST_TRAINS) {
        const batch = datagrams.slice(first, first + MOST_TRAINS);
        this.#layDatagrams(batch);
        const before = performance.now();
        this.#path.inbound(batch.length, this.#home.fd, NOW);
        received += this.#path.takeWrites();
        spent.receiving += performance.now() - before;
      }
      while (this.#path.pollFacts() !== undefined);
    }
    if (received === 0) throw new Error(`nothing came back: ${JSON.stringify(this.#path.drops)}`);
    return { sent: (sent * 1000) / spent.sending, received: (received * 1000) / spent.receiving };
  }

  #layReads(): number {
    const { table, into, most } = this.#path.arena.reads;
    let at = into;
    for (let i = 0; i < most; i++) {
      const packet = this.#packets[this.#next++ % this.#packets.length] ?? new Uint8Array(0);
      this.#bytes.fill(0, at, at + VNET_HEADER_SIZE);
      this.#bytes.set(packet, at + VNET_HEADER_SIZE);
      this.#view.setUint32(table + i * READ_SIZE + READ_OFFSET, at, true);
      this.#view.setUint32(
        table + i * READ_SIZE + READ_LENGTH,
        VNET_HEADER_SIZE + packet.length,
        true,
      );
      at += 128;
    }
    return most;
  }

  /** Cuts trains, so that each datagram comes alone. */
  #takeDatagrams(count: number): Uint8Array[] {
    const { sends } = this.#path.arena;
    const size = MESSAGE_OVERHEAD + paddedLength(this.#packets[0]?.length ?? 0);
    const datagrams: Uint8Array[] = [];
    for (let i = 0; i < count; i++) {
      const start = this.#view.getUint32(sends + i * SEND_SIZE + SEND_OFFSET, true);
      const end = start + this.#view.getUint32(sends + i * SEND_SIZE + SEND_LENGTH, true);
      for (let at = start; at < end; at += size) datagrams.push(this.#bytes.slice(at, at + size));
    }
    return datagrams;
  }

  #layDatagrams(datagrams: readonly Uint8Array[]): void {
    const { table, into } = this.#path.arena.datagrams;
    for (const [i, datagram] of datagrams.entries()) {
      const record = table + i * DATAGRAM_SIZE;
      const at = into + i * LARGEST_TRAIN;
      this.#bytes.set(datagram, at);
      this.#view.setUint32(record + DATAGRAM_OFFSET, at, true);
      this.#view.setUint32(record + DATAGRAM_LENGTH, datagram.length, true);
      this.#view.setUint32(record + DATAGRAM_SEGMENT, 0, true);
      writeSource(this.#view.buffer as ArrayBuffer, record, this.#home);
    }
  }
}

const NOW = instantAt(0);
/** Header and tag of a transport message. */
const MESSAGE_OVERHEAD = 32;

function paddedLength(length: number): number {
  return (length + 15) & ~15;
}

function packetTo(peer: number): Uint8Array {
  const payload = new Uint8Array(8 + 64);
  new DataView(payload.buffer).setUint16(4, payload.length);
  return buildIpPacket(
    {
      source: Uint8Array.of(10, 0, 0, 1),
      destination: Uint8Array.of(10, 1, peer >> 8, peer & 255),
      protocol: 17,
      trafficClass: 0,
    },
    payload,
  );
}

/** The protocol agent of a site that has a session with every peer, kept open by keepalives. */
class Hub {
  readonly wireguard: Wireguard;
  readonly #count: number;
  #now: Instant = NOW;

  constructor(count: number) {
    this.#count = count;
    const hubKey = randomBytes(nodeRandom, 32);
    this.wireguard = this.#agent(hubKey);
    for (let peer = 0; peer < count; peer++) this.#join(peer, crypto.x25519.publicKey(hubKey));
  }

  readStatus(): void {
    for (let peer = 0; peer < this.#count; peer++) sink.value = this.wireguard.peerStatus(peer);
  }

  /** Lets time pass, in steps from deadline to deadline; returns the milliseconds it took. */
  pass(ms: number): number {
    const end = after(this.#now, ms);
    let kept = 0;
    const started = performance.now();
    for (;;) {
      const due = this.wireguard.pollTimeout();
      if (due === undefined || due.at > end) break;
      this.#now = due.at > this.#now ? due.at : this.#now;
      this.wireguard.handleTimeout(this.#now);
      kept += this.#drain();
    }
    const took = performance.now() - started;
    if (kept < this.#count) throw new Error(`${kept} keepalives of ${this.#count} peers`);
    return took;
  }

  #agent(privateKey: Uint8Array): Wireguard {
    const options = { crypto, random: nodeRandom, log: nullLog, privateKey, unixMs: 1.8e12 };
    return new Wireguard(options, this.#now);
  }

  /** A handshake that the hub begins. Time passes, as so many at once would be taken for an attack. */
  #join(peer: number, hubPublicKey: Uint8Array): void {
    this.#now = after(this.#now, 20);
    const now = this.#now;
    const privateKey = randomBytes(nodeRandom, 32);
    const other = this.#agent(privateKey);
    const settings = { rekeyAttemptTime: 90_000, persistentKeepalive: 25 };
    const publicKey = crypto.x25519.publicKey(privateKey);
    const [here, there] = [socketAddress('192.0.2.1:51820'), socketAddress('192.0.2.2:51820')];
    other.setPeer(0, { ...settings, persistentKeepalive: 0, publicKey: hubPublicKey }, now);
    this.wireguard.setPeer(peer, { ...settings, publicKey }, now);
    this.wireguard.setEndpoint(peer, there, now);
    this.wireguard.requestHandshake(peer, now);
    const initiation = this.#takeTransmit(this.wireguard);
    other.handleDatagram({ payload: initiation, from: here }, now);
    const response = this.#takeTransmit(other);
    this.wireguard.handleDatagram({ payload: response, from: there }, now);
    this.#drain();
    if (this.wireguard.peerStatus(peer)?.hasSession !== true) throw new Error('no session');
  }

  #takeTransmit(agent: Wireguard): Uint8Array {
    const transmit = agent.pollTransmit();
    if (transmit === undefined) throw new Error('nothing to send');
    return transmit.payload;
  }

  /** Does what the packet path would; returns the number of keepalives. */
  #drain(): number {
    let kept = 0;
    for (;;) {
      const event = this.wireguard.pollEvent();
      if (event === undefined) break;
      if (event.type !== 'keepalive-due') continue;
      kept++;
      const { peer } = event;
      const received = { receivedData: false, receivedKeepalive: false };
      const sent = { sentData: false, sentKeepalive: true, sendCounter: kept };
      this.wireguard.handleTransport({ peer, ...sent, ...received }, this.#now);
    }
    while (this.wireguard.pollTransmit() !== undefined);
    return kept;
  }
}

function socketAddress(text: string): SocketAddress {
  const parsed = parseSocketAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
