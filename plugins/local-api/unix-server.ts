import { lstatSync, mkdirSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { pipeline } from 'node:stream';
import { failed, ok, type Outcome } from '../../core/sansio/outcome.ts';
import type { TextSplitter } from '../../core/sansio/text-splitter.ts';

/** `in-use`: another process answers on the path; `not-permitted`: the path is not ours to make. */
export type ListenFailure = 'in-use' | 'not-permitted' | 'failed';

/** A server on a unix socket that can be started and stopped, again and again. */
export interface LocalServer {
  start(): Promise<Outcome<void, ListenFailure>>;
  stop(): Promise<void>;
}

export interface UnixServerOptions {
  readonly path: string;
  /** How the bytes become text. */
  readonly encoding: 'utf8' | 'latin1';
  /** Cuts the stream of one connection into requests. */
  createSplitter(): TextSplitter;
  /** Answers a request; '' answers nothing. Must not throw. */
  answer(request: string): Promise<string>;
  /** The last words to a client whose request is too large. */
  readonly tooLarge: string;
}

/** More connections than this push out those that have been silent for longest. */
const MOST_CONNECTIONS = 16;

/**
 * Serves requests on a unix socket of mode 0600. A connection is read no faster than its answers are
 * taken, so a client that does not read costs one answer.
 */
export function createUnixServer(options: UnixServerOptions): LocalServer {
  /** In the order of their last requests. */
  const connections = new Set<Socket>();
  let server: Server | undefined;

  async function* answers(socket: Socket, pieces: AsyncIterable<string>): AsyncGenerator<string> {
    const splitter = options.createSplitter();
    for await (const piece of pieces) {
      connections.delete(socket);
      connections.add(socket);
      const requests = splitter.push(piece);
      if (!requests.ok) {
        yield options.tooLarge;
        return;
      }
      for (const request of requests.value) {
        const answer = await options.answer(request);
        if (answer !== '') yield answer;
      }
    }
  }

  function accept(socket: Socket): void {
    const [silentForLongest] = connections;
    if (connections.size >= MOST_CONNECTIONS) silentForLongest?.destroy();
    connections.add(socket);
    socket.setEncoding(options.encoding);
    // A client that is gone is no error of ours: pipeline has destroyed the socket.
    pipeline(
      socket,
      (pieces: AsyncIterable<string>) => answers(socket, pieces),
      socket,
      () => connections.delete(socket),
    );
  }

  async function start(): Promise<Outcome<void, ListenFailure>> {
    if (server !== undefined) return ok(undefined);
    makeDirectory(options.path);
    const starting = createServer({ allowHalfOpen: true }, accept);
    server = starting;
    let failure = await listen(starting, options.path);
    if (failure === 'in-use' && (await removeStale(options.path)) && server === starting) {
      failure = await listen(starting, options.path);
    }
    if (server !== starting) return failed('failed');
    if (failure === undefined) return ok(undefined);
    server = undefined;
    return failed(failure);
  }

  async function stop(): Promise<void> {
    const stopping = server;
    server = undefined;
    for (const socket of connections) socket.destroy();
    if (stopping === undefined) return;
    // Closing also removes the socket file.
    await new Promise((resolve) => stopping.close(resolve));
  }

  return { start, stop };
}

function makeDirectory(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true });
  } catch {
    // Listening fails for the same reason and says so.
  }
}

function listen(server: Server, path: string): Promise<ListenFailure | undefined> {
  return new Promise((resolve) => {
    const onError = (error: NodeJS.ErrnoException): void => resolve(listenFailure(error));
    server.once('error', onError);
    // The socket file is made within the call, so that nobody meets it with another mode.
    const umask = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.off('error', onError);
        // Errors of accept, such as too many open files, concern one client only.
        server.on('error', () => undefined);
        resolve(undefined);
      });
    } finally {
      process.umask(umask);
    }
  });
}

function listenFailure(error: NodeJS.ErrnoException): ListenFailure {
  switch (error.code ?? '') {
    case 'EADDRINUSE':
      return 'in-use';
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return 'not-permitted';
    default:
      return 'failed';
  }
}

/** Removes the socket of a process that is gone; returns whether there was one. */
async function removeStale(path: string): Promise<boolean> {
  const isAnswered = await new Promise<boolean>((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
  });
  try {
    if (isAnswered || !lstatSync(path).isSocket()) return false;
    unlinkSync(path);
    return true;
  } catch {
    // Somebody else removed it first, or it cannot be removed: the next attempt to listen tells.
    return true;
  }
}
