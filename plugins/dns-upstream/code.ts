/** The code of an error of Node.js or OpenSSL: unlike its message, it names no address and no name. */
export function codeOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'code' in error
    ? String(error.code)
    : 'unknown';
}
