import type { Log } from '../../core/sansio/log.ts';
import { TextSplitter } from '../../core/sansio/text-splitter.ts';
import { createUnixServer, type LocalServer } from './unix-server.ts';

export type LocalApiMethod = (params: unknown) => unknown;

export interface LocalApiOptions {
  readonly path: string;
  /** May return promises; may throw `LocalApiError`. */
  readonly methods: Readonly<Record<string, LocalApiMethod>>;
  readonly log: Log;
}

/** A failure that the caller of a method shall read. */
export class LocalApiError extends Error {
  override readonly name = 'LocalApiError';
  readonly code: number;

  /** `code` is one of JSON-RPC 2.0 §5.1, by default *invalid params*. */
  constructor(message: string, code: number = INVALID_PARAMS) {
    super(message);
    this.code = code;
  }
}

/** Longer requests are refused, in characters. */
const REQUEST_LIMIT = 2 ** 20;

/**
 * Serves JSON-RPC 2.0 on a unix socket, one request or answer a line.
 *
 * Deviation: batches are refused (a line is a request; lines are answered in order).
 */
export function createLocalApi({ path, methods, log }: LocalApiOptions): LocalServer {
  async function answer(line: string): Promise<string> {
    if (line.trim() === '') return '';
    const request = parseRequest(line);
    if (request.type === 'error') return failure(undefined, request.code, request.message);
    const { id, name, params } = request;
    const outcome = await call(name, params);
    if (request.type === 'notification') return '';
    if (!outcome.ok) return failure(id, outcome.code, outcome.message);
    return `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":${outcome.json}}\n`;
  }

  async function call(name: string, params: unknown): Promise<MethodOutcome> {
    const method = Object.hasOwn(methods, name) ? methods[name] : undefined;
    if (method === undefined)
      return { ok: false, code: METHOD_NOT_FOUND, message: 'no such method' };
    try {
      return { ok: true, json: JSON.stringify((await method(params)) ?? null) };
    } catch (error) {
      if (error instanceof LocalApiError) {
        return { ok: false, code: error.code, message: error.message };
      }
      log.error('local method failed', { method: name, cause: String(error) });
      return { ok: false, code: INTERNAL_ERROR, message: 'internal error, see the log' };
    }
  }

  return createUnixServer({
    path,
    encoding: 'utf8',
    createSplitter: () => new TextSplitter('\n', REQUEST_LIMIT),
    answer,
    tooLarge: failure(undefined, INVALID_REQUEST, 'request too large'),
  });
}

type RequestId = string | number | null;

type Request =
  | {
      readonly type: 'call';
      readonly id: RequestId;
      readonly name: string;
      readonly params: unknown;
    }
  | {
      readonly type: 'notification';
      readonly id: null;
      readonly name: string;
      readonly params: unknown;
    }
  | { readonly type: 'error'; readonly code: number; readonly message: string };

type MethodOutcome =
  | { readonly ok: true; readonly json: string }
  | { readonly ok: false; readonly code: number; readonly message: string };

/* JSON-RPC 2.0 §5.1. */
const PARSE_ERROR = -32_700;
const INVALID_REQUEST = -32_600;
const METHOD_NOT_FOUND = -32_601;
const INVALID_PARAMS = -32_602;
const INTERNAL_ERROR = -32_603;

function parseRequest(line: string): Request {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    // What the line is not, the answer says; where exactly is of no use to a program.
    return { type: 'error', code: PARSE_ERROR, message: 'not JSON' };
  }
  if (!isObject(value) || value['jsonrpc'] !== '2.0' || typeof value['method'] !== 'string') {
    return { type: 'error', code: INVALID_REQUEST, message: 'not a JSON-RPC 2.0 request' };
  }
  const { id, method: name, params } = value;
  if (id === undefined) return { type: 'notification', id: null, name, params };
  if (typeof id !== 'string' && typeof id !== 'number' && id !== null) {
    return { type: 'error', code: INVALID_REQUEST, message: 'not a request id' };
  }
  return { type: 'call', id, name, params };
}

function failure(id: RequestId | undefined, code: number, message: string): string {
  return `${JSON.stringify({ jsonrpc: '2.0', id: id ?? null, error: { code, message } })}\n`;
}

function isObject(value: unknown): value is Record<string, unknown> & { method: string } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
