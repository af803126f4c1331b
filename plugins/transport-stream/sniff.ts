import type { Socket } from 'node:net';

/** What the first bytes of an accepted stream belong to. */
export type FirstBytes = 'tls' | 'http' | 'bytes';

/**
 * Reads until the first bytes tell what they belong to, and puts them back. The socket is left paused.
 * `onKnown` is never called for a stream that ends before.
 */
export function sniff(socket: Socket, onKnown: (what: FirstBytes) => void): void {
  let seen = Buffer.alloc(0);
  const onBytes = (bytes: Buffer): void => {
    seen = Buffer.concat([seen, bytes]);
    const what = classify(seen);
    if (what === undefined) return;
    socket.off('data', onBytes);
    socket.pause();
    socket.unshift(seen);
    onKnown(what);
  };
  socket.on('data', onBytes);
}

/** Returns `undefined` where more bytes are needed. */
export function classify(first: Uint8Array): FirstBytes | undefined {
  if (startsAlike(first, TLS_HANDSHAKE)) {
    return first.length < TLS_HANDSHAKE.length ? undefined : 'tls';
  }
  if (startsAlike(first, HTTP_GET)) return first.length < HTTP_GET.length ? undefined : 'http';
  return 'bytes';
}

/**
 * RFC 8446 §5.1: a handshake record of any version. As the length of a frame of RFC 4571 it would be
 * 5635 bytes, and "GE" 18245: no first message is that long.
 */
const TLS_HANDSHAKE = Uint8Array.of(0x16, 0x03);

/** RFC 6455 §4.1: the opening handshake is a GET. */
const HTTP_GET = Buffer.from('GET ');

/** Whether the shorter one is the start of the other. */
function startsAlike(a: Uint8Array, b: Uint8Array): boolean {
  const length = Math.min(a.length, b.length);
  return a.subarray(0, length).every((byte, i) => byte === b[i]);
}
