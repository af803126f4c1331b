/**
 * Tells who asks by UDP whom it sees: `node echo.mjs serve PORT` answers at each address, as it is
 * then, with `ADDRESS PORT BYTES`; `node echo.mjs ask ADDRESS PORT [BYTES]` prints the answer, `nothing` if none comes.
 */
import { createSocket } from 'node:dgram';
import { networkInterfaces } from 'node:os';

const PATIENCE_MS = 8000;
const REPEAT_MS = 500;
const [mode, ...parameters] = process.argv.slice(2);
if (mode === 'serve') serve(Number(parameters[0]));
else ask(parameters[0], Number(parameters[1]), Number(parameters[2] ?? 10));

function serve(port) {
  const entries = Object.values(networkInterfaces()).flat();
  const hosts = entries.filter(({ scopeid = 0 }) => scopeid === 0); // link-local ones have a zone
  let listening = 0;
  for (const { address: host, family } of hosts) {
    // One socket for all addresses would answer from the address that the routes prefer.
    const socket = createSocket(family === 'IPv6' ? 'udp6' : 'udp4');
    socket.on('error', () => undefined); // ICMP errors are silence
    socket.on('message', ({ length }, from) => {
      socket.send(`${from.address} ${from.port} ${length}`, from.port, from.address);
    });
    socket.bind(port, host, () => ++listening === hosts.length && console.log('listening'));
  }
}

function ask(address, port, bytes) {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  const done = (answer) => {
    console.log(String(answer));
    process.exit();
  };
  socket.on('message', done);
  socket.on('error', ({ message }) => done(message));
  const send = () => socket.send(Buffer.alloc(bytes), port, address);
  setTimeout(() => done('nothing'), PATIENCE_MS);
  setInterval(send, REPEAT_MS);
  send();
}
