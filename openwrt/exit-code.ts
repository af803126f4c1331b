/** What the exit codes of `culvert` mean; `culvert help` prints this table. */
export const EXIT_CODES = {
  ok: { code: 0, meaning: 'success' },
  failure: { code: 1, meaning: 'something failed; the message says what' },
  usage: { code: 2, meaning: 'the command line is wrong' },
  configuration: { code: 3, meaning: 'the configuration is refused; the message names the value' },
  'not-permitted': { code: 4, meaning: 'a privilege is missing: CAP_NET_ADMIN, or root' },
  'no-tun': { code: 5, meaning: '/dev/net/tun is missing' },
  'name-taken': { code: 6, meaning: 'another program holds the interface name' },
  'port-taken': { code: 7, meaning: 'another program holds the UDP port' },
  'not-running': { code: 8, meaning: 'the daemon does not answer on its socket' },
  'no-native': { code: 9, meaning: 'the native file is missing or does not load' },
  'already-running': { code: 10, meaning: 'another daemon answers on the socket' },
  bug: { code: 70, meaning: 'an error of culvert itself; a flight record was written' },
} as const;

export type ExitName = keyof typeof EXIT_CODES;

export function exitCode(name: ExitName): number {
  return EXIT_CODES[name].code;
}

/** An end of the command with a message for the user: what failed, and what to do. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly exit: ExitName;

  constructor(exit: ExitName, message: string, options?: ErrorOptions) {
    super(message, options);
    this.exit = exit;
  }
}
