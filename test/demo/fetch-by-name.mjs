/**
 * Asks a DNS server for the address of a URL's host, as programs of the LAN do, and fetches the URL from it:
 * `node fetch-by-name.mjs URL SERVER`. Prints the address and what came as JSON.
 */
import { Resolver } from 'node:dns/promises';
import { get } from 'node:http';

const [url, server] = process.argv.slice(2);
const resolver = new Resolver({ timeout: 2000, tries: 3 });
resolver.setServers([server]);
const { hostname, port, pathname } = new URL(url);
const [address] = await resolver.resolve4(hostname);
const request = get({ host: address, port, path: pathname, headers: { host: hostname } });
request.on('error', (error) => {
  console.error(`${address}: ${error.message}`);
  process.exit(1);
});
request.on('response', async (response) => {
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk;
  console.log(JSON.stringify({ address, status: response.statusCode, text }));
});
