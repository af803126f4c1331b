/**
 * Fetches several URLs at once and prints how each ended, in their order, as JSON: `{ bytes, sha256 }` or
 * `{ error }`. The parameter is JSON: `[{ "url", "localAddress", "localPort" }]`.
 */
import { createHash } from 'node:crypto';
import { get } from 'node:http';

const wanted = JSON.parse(process.argv[2]);
console.log(JSON.stringify(await Promise.all(wanted.map(download))));

function download({ url, localAddress, localPort }) {
  return new Promise((resolve) => {
    const fail = ({ message }) => resolve({ error: message });
    const hash = createHash('sha256');
    let bytes = 0;
    const request = get(url, { agent: false, localAddress, localPort }, (response) => {
      response.on('error', fail);
      response.on('data', (chunk) => {
        hash.update(chunk);
        bytes += chunk.length;
      });
      response.on('end', () => resolve({ bytes, sha256: hash.digest('hex') }));
    });
    request.on('error', fail);
  });
}
