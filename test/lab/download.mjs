/**
 * Fetches a URL over one connection and prints what came as JSON: `node download.mjs URL`. With
 * `--progress` it also prints `at BYTES` ten times a second.
 */
import { createHash } from 'node:crypto';
import { get } from 'node:http';

const [url, progress] = process.argv.slice(2);
const started = performance.now();
const hash = createHash('sha256');
let bytes = 0;
let heardAt = started;
let longestGapMs = 0;
const request = get(url, { agent: false }, (response) => {
  response.on('error', fail);
  response.on('data', (chunk) => {
    hash.update(chunk);
    bytes += chunk.length;
    longestGapMs = Math.max(longestGapMs, performance.now() - heardAt);
    heardAt = performance.now();
  });
  response.on('end', () => {
    clearInterval(timer);
    const seconds = (performance.now() - started) / 1000;
    console.log(JSON.stringify({ bytes, seconds, longestGapMs, sha256: hash.digest('hex') }));
  });
});
request.on('error', fail);
const timer =
  progress === '--progress' ? setInterval(() => console.log(`at ${bytes}`), 100) : undefined;

function fail(error) {
  console.error(`failed after ${bytes} bytes: ${error.message}`);
  process.exit(1);
}
