/** A DNS server that knows names of a site alone: `node name-server.mjs HOST NAME ADDRESS`. */
import { createSocket } from 'node:dgram';
import dnsPacket from 'dns-packet';

const [host, name, address] = process.argv.slice(2);
const server = createSocket('udp4');
server.on('message', (message, { address: from, port }) => {
  const { id, questions } = dnsPacket.decode(message);
  const [question] = questions;
  const isKnown = question.name.toLowerCase() === name;
  const isAsked = isKnown && question.type === 'A';
  const response = dnsPacket.encode({
    type: 'response',
    id,
    flags: dnsPacket.AUTHORITATIVE_ANSWER | (isKnown ? 0 : NXDOMAIN),
    questions,
    answers: isAsked ? [{ type: 'A', name: question.name, ttl: 60, data: address }] : [],
  });
  server.send(response, port, from);
});
server.bind(53, host, () => console.log('listening'));

const NXDOMAIN = 3;
