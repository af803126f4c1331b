/** Fetches a URL and prints what came as JSON: `node download.mjs URL`. */
import { createHash } from 'node:crypto';
import { get } from 'node:http';

const started = performance.now();
get(process.argv[2], (response) => {
  const hash = createHash('sha256');
  let bytes = 0;
  response.on('data', (chunk) => {
    bytes += chunk.length;
    hash.update(chunk);
  });
  response.on('end', () => {
    const seconds = (performance.now() - started) / 1000;
    console.log(JSON.stringify({ bytes, seconds, sha256: hash.digest('hex') }));
  });
});
