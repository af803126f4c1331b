import { request as httpRequest } from 'node:http';
import type { Socket } from 'node:net';
import { describeProxyStatus, Refusal } from './problem.ts';

export interface Proxy {
  /** A name or an address. */
  readonly host: string;
  readonly port: number;
  /** Value of Proxy-Authorization (RFC 7617). Secret. */
  readonly authorization: string | undefined;
}

/** Reads `http://[user:password@]host:port`; throws for anything else. */
export function parseProxy(text: string): Proxy {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'http:') throw new Refusal('streams.proxy must be http://host:port');
  const { hostname, port, username, password } = url;
  const login = `${unescape(username)}:${unescape(password)}`;
  return {
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? 80 : Number(port),
    authorization:
      username === '' ? undefined : `Basic ${Buffer.from(login, 'utf8').toString('base64')}`,
  };
}

/** Has the proxy connect the socket with `authority`, a host and port (RFC 9110 §9.3.6). */
export function connectThrough(
  socket: Socket,
  { authorization }: Proxy,
  authority: string,
): Promise<void> {
  const request = httpRequest({
    method: 'CONNECT',
    path: authority,
    headers: {
      host: authority,
      ...(authorization === undefined ? {} : { 'proxy-authorization': authorization }),
    },
    createConnection: () => socket,
  });
  return new Promise((resolve, reject) => {
    request.once('connect', ({ statusCode = 0 }, _socket, head: Buffer) => {
      if (statusCode < 200 || statusCode > 299) {
        reject(new Refusal(describeProxyStatus(statusCode, authorization !== undefined)));
        return;
      }
      if (head.length > 0) socket.unshift(head);
      resolve();
    });
    request.on('error', reject);
    request.once('close', () => reject(new Refusal('the proxy closed without an answer')));
    request.end();
  });
}

/** A percent sign may stand for itself. */
function unescape(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
