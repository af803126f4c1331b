/**
 * A DNS server that answers each A query with the next of its addresses and a TTL of 0, and all else with
 * nothing: `node rotating-dns.mjs HOST ADDRESS...`. Prints `answered ADDRESS`. After SIGUSR2 it stays with the
 * last address.
 */
import { createSocket } from 'node:dgram';

const HEADER = 12;
const TYPE_A = 1;
const [host, ...addresses] = process.argv.slice(2);
let queries = 0;
let isFixed = false;
process.on('SIGUSR2', () => {
  isFixed = true;
});
const socket = createSocket('udp4');
socket.on('message', (query, { address, port }) => {
  let end = HEADER;
  while (query[end] !== 0) end += 1 + query[end];
  const question = query.subarray(HEADER, end + 5);
  const isA = query.readUInt16BE(end + 1) === TYPE_A;
  const header = Buffer.alloc(HEADER);
  query.copy(header, 0, 0, 2);
  header.writeUInt16BE(0x8580, 2); // an authoritative answer, recursion desired and available
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(isA ? 1 : 0, 6);
  const answer = isA ? record(nextAddress()) : Buffer.alloc(0);
  socket.send(Buffer.concat([header, question, answer]), port, address);
});
socket.bind(53, host, () => console.log('listening'));

function nextAddress() {
  const number = isFixed ? addresses.length - 1 : queries++ % addresses.length;
  console.log(`answered ${addresses[number]}`);
  return addresses[number];
}

/** The name by a pointer to the question (RFC 1035 §4.1.4), A, IN, TTL 0. */
function record(address) {
  const head = [0xc0, HEADER, 0, TYPE_A, 0, 1, 0, 0, 0, 0, 0, 4];
  return Buffer.from([...head, ...address.split('.').map(Number)]);
}
