import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { createWebSocketStream, WebSocket, WebSocketServer } from 'ws';
import { Refusal } from './problem.ts';

/*
 * The WebSocket (RFC 6455) is a disguise of a byte stream: messages are binary, and where they begin and
 * end means nothing.
 */

/** Opens a WebSocket on a stream that is up. `authority` is the host and port that it asks for. */
export function openWebSocket(socket: Socket, authority: string): Promise<Duplex> {
  const client = new WebSocket(`ws://${authority}/`, {
    createConnection: () => socket,
    generateMask: leaveUnmasked,
    ...LIMITS,
  });
  // Before it is open, so that nothing which comes with the answer is lost.
  const duplex = streamOf(client, socket);
  return new Promise((resolve, reject) => {
    client.once('open', () => resolve(duplex));
    client.once('unexpected-response', (_request, { statusCode }) => {
      reject(
        new Refusal(
          `answered with HTTP ${statusCode} and not as a WebSocket: is that the port of a peer?`,
        ),
      );
    });
    client.once('error', reject);
    client.once('close', () => reject(new Refusal('closed before the WebSocket was open')));
  });
}

/** The server's side of the opening handshake, for requests that a HTTP server has read. */
export class WebSocketUpgrade {
  readonly #server = new WebSocketServer({ noServer: true, clientTracking: false, ...LIMITS });

  /** Answers the request; what is no proper opening handshake is answered with an error and closed. */
  accept(request: IncomingMessage, head: Buffer, onOpen: (duplex: Duplex) => void): void {
    const { socket } = request;
    this.#server.handleUpgrade(request, socket, head, (client) => onOpen(streamOf(client, socket)));
  }
}

/**
 * Bytes of a message, which waits in memory until it is whole: with MOST_ACCEPTED strangers, 32 MB. Ours
 * are half as large.
 */
const LARGEST_MESSAGE = 128 << 10;

const LIMITS = {
  maxPayload: LARGEST_MESSAGE,
  // What we carry is encrypted and does not compress.
  perMessageDeflate: false,
  // Who takes part in the closing handshake and then keeps TCP open.
  closeTimeout: 1000,
} as const;

/**
 * The masking key is zero, which changes no byte. RFC 6455 §10.3 wants random keys so that no script can
 * choose what a proxy sees; here it is ciphertext, which nobody chooses. Byte by byte in JavaScript, the
 * masking would cost more than all the rest of the way.
 */
function leaveUnmasked(key: Buffer): void {
  key.fill(0);
}

function streamOf(client: WebSocket, socket: Socket): Duplex {
  const duplex = createWebSocketStream(client);
  // Who breaks the rules gets no closing handshake, for which ws would wait half a minute.
  client.once('error', (error) => socket.destroy(error));
  // Whoever uses it hears of the end; an error that nobody listens to would end the process.
  duplex.on('error', () => undefined);
  return duplex;
}
