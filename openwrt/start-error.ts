import type { Failure } from '../core/engine/event.ts';
import { CommandError, type ExitName } from './exit-code.ts';

/** Says why a configuration cannot run here, and what to do about it. */
export function startError(failures: readonly Failure[]): CommandError {
  const [first] = failures;
  const cure = CURES[first?.why ?? ''];
  if (first === undefined || cure === undefined) {
    return new CommandError(
      'failure',
      failures.map(({ path, why }) => `${path}: ${why}`).join('; '),
    );
  }
  return new CommandError(cure.exit, `${first.path}: ${cure.message}`);
}

/** Says why the socket of the other commands cannot be there. */
export function socketError(path: string, why: string): CommandError {
  if (why === 'in-use') {
    return new CommandError(
      'already-running',
      `another culvert runs already: it answers on ${path}`,
    );
  }
  return new CommandError(
    'failure',
    `cannot listen on ${path} (${why}): name another with --socket`,
  );
}

const CURES: Readonly<Record<string, { readonly exit: ExitName; readonly message: string }>> = {
  'no-tun': {
    exit: 'no-tun',
    message: '/dev/net/tun is missing: load the module (modprobe tun; OpenWrt: install kmod-tun)',
  },
  'not-permitted': {
    exit: 'not-permitted',
    message: 'CAP_NET_ADMIN is missing: run culvert as root or give it that capability',
  },
  'name-taken': {
    exit: 'name-taken',
    message: 'another program holds the interface: stop it, or set another interface.name',
  },
  'port-taken': {
    exit: 'port-taken',
    message: 'another program holds the UDP port: stop it, or set another interface.listenPort',
  },
};
