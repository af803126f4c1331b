import t from 'tap';
import { socketAddress, type SocketAddress } from '../../core/net/socket-address.ts';
import {
  decodeStun,
  encodeStun,
  isStun,
  type ReceivedStun,
  type StunAttributes,
  type StunClass,
  type StunMethod,
} from '../../core/stun/message.ts';
import { createNobleCrypto } from '../../plugins/crypto-noble/index.ts';
import { createNodeCrypto } from '../../plugins/crypto-node/index.ts';
import { NAT_PRESETS } from './nat.ts';
import { TurnServer, type TurnServerOptions } from './turn-server.ts';
import { World } from './world.ts';

const crypto = createNodeCrypto(createNobleCrypto());
const PEER = '203.0.113.5:1' as SocketAddress;
const MINUTE = 60_000;

await t.test('a binding request tells the address outside the NAT', async (t) => {
  const { request, gateway } = scene();
  const { xorMappedAddress } = request('binding', {}, { isProven: false }).attributes;
  t.equal(xorMappedAddress, `${gateway.nat?.external}:5000`);
});

await t.test('an allocation takes a proof, which the server asks for', async (t) => {
  const { server, request } = scene();
  const first = request('allocate', { requestedTransport: 17 }, { isProven: false });
  t.match(first.attributes, { errorCode: { code: 401 }, realm: 'simulated', nonce: String });
  const wrong = request('allocate', { requestedTransport: 17 }, { password: 'wrong' });
  t.equal(wrong.attributes.errorCode?.code, 401);
  const answer = request('allocate', { requestedTransport: 17 });
  t.match(answer.attributes, {
    lifetime: 600,
    xorRelayedAddresses: [/^198\.51\.100\.1:\d+$/],
    xorMappedAddress: /^198\.51\.100\.2:5000$/,
  });
  t.ok(answer.hasIntegrity);
  t.equal(server.allocations, 1);
});

await t.test('requests that RFC 8656 refuses are refused with its numbers', async (t) => {
  const code = (
    attributes: StunAttributes,
    options: Partial<TurnServerOptions> & { isAllocated?: boolean; method?: StunMethod } = {},
  ) => {
    const { request } = scene(options);
    if (options.isAllocated === true) request('allocate', { requestedTransport: 17 });
    return request(options.method ?? 'allocate', attributes).attributes.errorCode?.code;
  };
  t.equal(code({}), 400, 'no transport');
  t.equal(code({ requestedTransport: 6 }), 442, 'TCP');
  t.equal(code({ requestedTransport: 17, requestedAddressFamily: 6 }), 440);
  t.equal(code({ requestedTransport: 17, additionalAddressFamily: 4 }), 400);
  t.equal(code({ requestedTransport: 17 }, { isAllocated: true }), 437, 'a second one');
  t.equal(code({ requestedTransport: 17 }, { quota: 0 }), 486);
  t.equal(code({ requestedTransport: 17 }, { capacity: 0 }), 508);
  t.equal(code({}, { method: 'refresh' }), 437, 'without an allocation');

  const bind = { method: 'channel-bind', isAllocated: true } as const;
  t.equal(code({ channelNumber: 0x3fff, xorPeerAddresses: [PEER] }, bind), 400);
  t.equal(code({ channelNumber: 0x4000 }, bind), 400);
  const ipv6 = '[2001:db8::9]:1' as SocketAddress;
  t.equal(code({ channelNumber: 0x4000, xorPeerAddresses: [ipv6] }, bind), 443);
  const forbids = () => true;
  t.equal(code({ channelNumber: 0x4000, xorPeerAddresses: [PEER] }, { ...bind, forbids }), 403);
});

await t.test('a channel and its peer stay together', async (t) => {
  const { request } = scene();
  request('allocate', { requestedTransport: 17 });
  const other = '203.0.113.5:2' as SocketAddress;
  const bind = (channelNumber: number, peer: SocketAddress) =>
    request('channel-bind', { channelNumber, xorPeerAddresses: [peer] }).class;
  t.equal(bind(0x4000, PEER), 'success');
  t.equal(bind(0x4000, PEER), 'success');
  t.equal(bind(0x4000, other), 'error');
  t.equal(bind(0x4001, PEER), 'error');
  t.equal(bind(0x4001, other), 'success');
});

await t.test('data go through with a permission, by indication or channel', async (t) => {
  const { world, client, request, peer, send } = scene();
  const { xorRelayedAddresses } = request('allocate', { requestedTransport: 17 }).attributes;
  const relayed = xorRelayedAddresses![0]!;
  peer.socket.send(relayed, Buffer.from('too early'));
  world.run(100);
  t.same(client.received.splice(0), []);

  request('create-permission', { xorPeerAddresses: [peer.address] });
  peer.socket.send(relayed, Buffer.from('hello'));
  world.run(100);
  const indication = decodeStun(client.received.splice(0)[0]!);
  t.match(indication, { value: { method: 'data', class: 'indication' } });
  t.same(indication.ok && Buffer.from(indication.value.attributes.data!).toString(), 'hello');
  send('send', 'indication', { xorPeerAddresses: [peer.address], data: Buffer.from('hi') });
  world.run(100);
  t.same(peer.heard.splice(0), [`${relayed} hi`]);

  request('channel-bind', { channelNumber: 0x4abc, xorPeerAddresses: [peer.address] });
  peer.socket.send(relayed, Buffer.from('again'));
  client.socket.send(client.server, Buffer.from('4abc00026869', 'hex'));
  world.run(100);
  t.same(client.received.splice(0).map(hex), ['4abc0005616761696e']);
  t.same(peer.heard.splice(0), [`${relayed} hi`]);
});

await t.test('permissions, channels and allocations end without a refresh', async (t) => {
  const { world, client, request, peer, server } = scene();
  const { xorRelayedAddresses } = request('allocate', { requestedTransport: 17 }).attributes;
  const relayed = xorRelayedAddresses![0]!;
  const bind = () =>
    request('channel-bind', { channelNumber: 0x4000, xorPeerAddresses: [peer.address] });
  const passes = () => {
    client.received.length = 0;
    peer.socket.send(relayed, Buffer.from('x'));
    world.run(100);
    return client.received.length;
  };
  bind();
  world.run(4.9 * MINUTE);
  t.equal(passes(), 1);
  world.run(0.2 * MINUTE);
  t.equal(passes(), 0, 'the permission is over, the channel is not');
  bind();
  t.equal(passes(), 1);
  world.run(4 * MINUTE);
  t.equal(request('refresh', { lifetime: 3600 }).attributes.lifetime, 3600);
  world.run(59 * MINUTE);
  t.equal(server.allocations, 1);
  world.run(2 * MINUTE);
  t.equal(server.allocations, 0);
});

await t.test('a refresh with lifetime 0 gives the allocation back', async (t) => {
  const { request, server } = scene();
  request('allocate', { requestedTransport: 17 });
  t.equal(request('refresh', { lifetime: 0 }).attributes.lifetime, 0);
  t.equal(server.allocations, 0);
});

await t.test('after a reboot nonces are stale and allocations gone', async (t) => {
  const { request, server, world } = scene();
  request('allocate', { requestedTransport: 17 });
  server.reboot();
  t.equal(request('refresh', {}).attributes.errorCode?.code, 438);
  t.equal(request('refresh', {}).attributes.errorCode?.code, 437);
  server.stop();
  t.throws(() => request('binding', {}), /no answer/);
  server.start();
  t.equal(request('binding', {}).class, 'success');
  t.equal(world.internet.unreachable, 0);
});

await t.test('names made from a secret work until they expire', async (t) => {
  const at = (seconds: number) => {
    const username = `${Date.UTC(2026, 0, 1) / 1000 + seconds}:r1`;
    const key = Buffer.from('shared');
    const password = Buffer.from(crypto.hmacSha1(key, Buffer.from(username))).toString('base64');
    const { request } = scene({ users: { secret: 'shared' } });
    return request('allocate', { requestedTransport: 17 }, { username, password }).class;
  };
  t.equal(at(60), 'success');
  t.equal(at(-60), 'error');
});

await t.test('a stream carries the same, in pieces, with padded channel data', async (t) => {
  const { server, peer, world } = scene();
  const received: Uint8Array[] = [];
  const mapped = '198.51.100.9:40000' as SocketAddress;
  const stream = server.accept(mapped, {
    send: (bytes) => received.push(bytes),
    close: () => received.push(Buffer.from('closed')),
  });
  const exchange = exchanger((bytes) => {
    for (const byte of bytes) stream.receive(Uint8Array.of(byte));
    return received.splice(0)[0];
  });
  const relayed = exchange('allocate', { requestedTransport: 17 }).attributes.xorRelayedAddresses!;
  exchange('channel-bind', { channelNumber: 0x4000, xorPeerAddresses: [peer.address] });
  stream.receive(Buffer.from('4000000261620000', 'hex'));
  world.run(100);
  t.same(peer.heard, [`${relayed[0]} ab`]);
  peer.socket.send(relayed[0]!, Buffer.from('c'));
  world.run(100);
  t.same(received.splice(0).map(hex), ['4000000163000000']);
  server.reboot();
  t.same(received.map(String), ['closed']);
  t.equal(server.allocations, 0);
});

/** A client behind a NAT, a server and a peer on the Internet. */
function scene(options: Partial<TurnServerOptions> = {}) {
  const world = new World(1);
  const host = world.host('turn');
  const users = new Map([['r1', 'secret']]);
  const server = new TurnServer({ host, random: world.random, crypto, users, ...options });
  const { network, gateway } = world.network({
    behind: { ...NAT_PRESETS.restrictedCone, timeout: 1_000 * MINUTE },
  });
  const received: Uint8Array[] = [];
  const socket = world
    .host('client', network)
    .listen(5000, (_from, _to, payload) => received.push(payload));
  const to = server.address(4)!;
  const request = exchanger((bytes) => {
    received.length = 0;
    socket.send(to, bytes);
    world.run(100);
    return received.splice(0).find(isStun);
  });
  const send = (method: StunMethod, messageClass: StunClass, attributes: StunAttributes) => {
    const transactionId = new Uint8Array(12);
    socket.send(
      to,
      encodeStun({ class: messageClass, method, transactionId, attributes }, { crypto }),
    );
  };

  const peerHost = world.host('peer');
  const heard: string[] = [];
  const peerSocket = peerHost.listen(9, (from, _to, payload) => {
    heard.push(`${from} ${String(Buffer.from(payload))}`);
  });
  const peer = { socket: peerSocket, heard, address: socketAddress(peerHost.address(4)!, 9) };
  return { world, server, gateway, request, send, peer, client: { socket, received, server: to } };
}

interface Proof {
  readonly isProven?: boolean;
  readonly username?: string;
  readonly password?: string;
}

/** Makes requests with the nonce that was told last; gets one first where none was. */
function exchanger(carry: (bytes: Uint8Array) => Uint8Array | undefined) {
  let nonce: string | undefined;
  let count = 0;
  const exchange = (method: StunMethod, attributes: StunAttributes, proof: Proof): ReceivedStun => {
    const { isProven = true, username = 'r1', password = 'secret' } = proof;
    const transactionId = new Uint8Array(12).fill(++count);
    const realm = 'simulated';
    const proven = isProven && nonce !== undefined ? { username, realm, nonce } : {};
    const integrityKey = crypto.md5(Buffer.from(`${username}:${realm}:${password}`));
    const bytes = encodeStun(
      { class: 'request', method, transactionId, attributes: { ...attributes, ...proven } },
      { crypto, ...(isProven && nonce !== undefined && { integrityKey }) },
    );
    const answer = carry(bytes);
    if (answer === undefined) throw new Error('no answer');
    const decoded = decodeStun(answer);
    if (!decoded.ok) throw new Error('not STUN');
    nonce = decoded.value.attributes.nonce ?? nonce;
    return decoded.value;
  };
  return (method: StunMethod, attributes: StunAttributes, proof: Proof = {}): ReceivedStun => {
    const needsNonce = proof.isProven !== false && nonce === undefined && method !== 'binding';
    if (needsNonce) exchange(method, attributes, { isProven: false });
    return exchange(method, attributes, proof);
  };
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
