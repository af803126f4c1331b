/**
 * Finds out by UDP what a NAT does.
 *
 *   node nat-probe.mjs serve ADDRESS:PORT...
 *     answers each datagram with the source that it saw, from the socket that the datagram names;
 *     tells two who say `meet` of each other
 *   node nat-probe.mjs ask PORT A1 A2 B1
 *     asks servers, two of them at one address, and prints JSON: `seen`, what each server saw of one
 *     socket, and `answered`, which of them could answer a socket that had sent to the first only
 *   node nat-probe.mjs punch PORT SERVER
 *     meets another one at the server and prints whether they hear each other
 */
import { createSocket } from 'node:dgram';
import { setTimeout as wait } from 'node:timers/promises';

const PATIENCE_MS = 300;
const [mode, ...parameters] = process.argv.slice(2);
if (mode === 'serve') await serve(parameters);
if (mode === 'ask') await ask(Number(parameters[0]), parameters.slice(1));
if (mode === 'punch') await punch(Number(parameters[0]), parameters[1]);

async function serve(endpoints) {
  const sockets = new Map();
  const waiting = [];
  for (const endpoint of endpoints) {
    const [address, port] = split(endpoint);
    const socket = await bind(port, address);
    sockets.set(endpoint, socket);
    socket.on('message', (message, { address, port }) => {
      if (message.toString() === 'meet') {
        waiting.push(`${address}:${port}`);
        if (waiting.length < 2) return;
        const [one, other] = waiting.splice(0);
        socket.send(`peer ${one}`, ...split(other).reverse());
        socket.send(`peer ${other}`, ...split(one).reverse());
        return;
      }
      const from = sockets.get(message.toString());
      from?.send(`${message.toString()} ${address}:${port}`, port, address);
    });
  }
  console.log('listening');
}

async function ask(port, servers) {
  const [first] = servers;
  const one = await bind(port);
  const seen = await Promise.all(servers.map((server) => exchange(one, server, server)));
  one.close();
  // A port of its own for each: what an earlier question opened must not count.
  const answers = await Promise.all(
    servers.map(async (server, index) => {
      const socket = await bind(port + 1 + index);
      const answer = await exchange(socket, first, server);
      socket.close();
      return answer !== undefined;
    }),
  );
  const byServer = (values) => Object.fromEntries(servers.map((each, i) => [each, values[i]]));
  console.log(JSON.stringify({ seen: byServer(seen), answered: byServer(answers) }));
}

async function punch(port, server) {
  const socket = await bind(port);
  // The first datagram of the peer may come from a port that only it shows (a peer-reflexive candidate).
  const peers = new Set();
  const heard = new Set();
  socket.on('message', (message, from) => {
    const text = message.toString();
    const peer = text.startsWith('peer ') ? text.slice(5) : `${from.address}:${from.port}`;
    peers.add(peer);
    if (text === 'heard you') heard.add(peer);
    else socket.send('heard you', ...split(peer).reverse());
  });
  socket.send('meet', ...split(server).reverse());
  for (let tries = 0; tries < 50 && peers.size === 0; tries++) await wait(20);
  for (let tries = 0; tries < 10 && heard.size === 0; tries++) {
    for (const peer of peers) socket.send('hello', ...split(peer).reverse());
    await wait(30);
  }
  await wait(60); // the peer may still be trying
  console.log(heard.size > 0 ? 'connected' : 'not connected');
  socket.close();
}

/** Sends to a server and returns what another one says that it saw, if an answer comes. */
function exchange(socket, to, answerFrom) {
  return new Promise((resolve) => {
    const listener = (message) => {
      const [server, seen] = message.toString().split(' ');
      if (server === answerFrom) end(seen);
    };
    const end = (seen) => {
      clearTimeout(timer);
      socket.off('message', listener);
      resolve(seen);
    };
    const timer = setTimeout(end, PATIENCE_MS);
    socket.on('message', listener);
    socket.send(answerFrom, ...split(to).reverse());
  });
}

function bind(port, address = '0.0.0.0') {
  const socket = createSocket('udp4');
  socket.on('error', () => undefined); // ICMP errors are silence
  return new Promise((resolve) => socket.bind(port, address, () => resolve(socket)));
}

function split(endpoint) {
  const [address, port] = endpoint.split(':');
  return [address, Number(port)];
}
