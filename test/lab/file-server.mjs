/**
 * Serves one file of pseudo-random bytes over HTTP: `node file-server.mjs HOST PORT BYTES [RATE]`, at most
 * RATE bytes a second per client.
 */
import { createCipheriv, createHash } from 'node:crypto';
import { createServer } from 'node:http';

const TICK_MS = 20;
const [host, port, bytes, rate] = process.argv.slice(2);
// A key stream: looks random, and every run serves the same file.
const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16));
const file = cipher.update(Buffer.alloc(Number(bytes)));
const sha256 = createHash('sha256').update(file).digest('hex');
createServer((_request, response) => {
  response.setHeader('content-length', file.length);
  if (rate === undefined) response.end(file);
  else trickle(response, Math.ceil((Number(rate) * TICK_MS) / 1000));
}).listen(Number(port), host, () => console.log(`listening ${sha256}`));

function trickle(response, bytesPerTick) {
  let sent = 0;
  const timer = setInterval(() => {
    if (response.writableNeedDrain) return; // what a stall takes is not made up for
    response.write(file.subarray(sent, sent + bytesPerTick));
    sent += bytesPerTick;
    if (sent < file.length) return;
    clearInterval(timer);
    response.end();
  }, TICK_MS);
  response.on('close', () => clearInterval(timer));
}
