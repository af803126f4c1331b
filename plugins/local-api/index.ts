export { callLocalApi, type LocalApiAnswer, type LocalApiFailure } from './client.ts';
export {
  LocalApiError,
  createLocalApi,
  type LocalApiMethod,
  type LocalApiOptions,
} from './json-rpc.ts';
export { createUapiSocket, type UapiHandler, type UapiSocketOptions } from './uapi-socket.ts';
export type { ListenFailure, LocalServer } from './unix-server.ts';
