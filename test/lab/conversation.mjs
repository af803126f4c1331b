/**
 * One TCP connection over which both ends speak ten times a second: `node conversation.mjs serve PORT` says all
 * again that it hears; `node conversation.mjs speak ADDRESS PORT` counts, and prints `established`. After SIGUSR2
 * it waits until all is answered and prints JSON: `isWhole`, unless anything was lost or came twice, and
 * `longestGapMs`, the longest time without an answer.
 */
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';

const INTERVAL_MS = 100;
const [mode, ...parameters] = process.argv.slice(2);
if (mode === 'serve') serve(Number(parameters[0]));
else speak(parameters[0], Number(parameters[1]));

function serve(port) {
  createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  }).listen(port, '0.0.0.0', () => console.log('listening'));
}

function speak(host, port) {
  let said = 0;
  let heard = 0;
  let heardAt = performance.now();
  let longestGapMs = 0;
  let isEnding = false;
  const socket = connect(port, host);
  const end = (isWhole) => {
    console.log(JSON.stringify({ isWhole, longestGapMs: Math.round(longestGapMs) }));
    process.exit();
  };
  socket.on('error', () => end(false));
  socket.on('connect', () => {
    setInterval(() => !isEnding && socket.write(`${++said}\n`), INTERVAL_MS);
  });
  createInterface({ input: socket }).on('line', (line) => {
    if (Number(line) !== ++heard) end(false);
    if (heard === 1) console.log('established');
    longestGapMs = Math.max(longestGapMs, performance.now() - heardAt);
    heardAt = performance.now();
    if (isEnding && heard === said) end(true);
  });
  process.on('SIGUSR2', () => {
    isEnding = true;
    socket.write(`${++said}\n`);
  });
}
