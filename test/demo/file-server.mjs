/** Serves one file of pseudo-random bytes over HTTP: `node file-server.mjs HOST PORT BYTES`. */
import { createCipheriv, createHash } from 'node:crypto';
import { createServer } from 'node:http';

const [host, port, bytes] = process.argv.slice(2);
// A key stream: looks random, and every run serves the same file.
const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16));
const file = cipher.update(Buffer.alloc(Number(bytes)));
const sha256 = createHash('sha256').update(file).digest('hex');
createServer((_request, response) => response.end(file)).listen(Number(port), host, () =>
  console.log(`listening ${sha256}`),
);
