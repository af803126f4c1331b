import type { ListenFailure } from '../../core/plugin/datagrams.ts';

export function listenFailure({ code }: NodeJS.ErrnoException): ListenFailure {
  switch (code ?? '') {
    case 'EADDRINUSE':
      return 'port-taken';
    case 'EACCES':
    case 'EPERM':
      return 'not-permitted';
    default:
      return 'refused';
  }
}
