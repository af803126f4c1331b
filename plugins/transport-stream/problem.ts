/** Something that we or the other side refuse, in words that name the cure. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
}

/**
 * Why a stream did not come about or ended. The texts are constant: they stand in logs, where addresses
 * have no place.
 */
export function describeProblem(error: unknown): string {
  if (error instanceof Refusal) return error.message;
  const code = codeOf(error);
  const known = SYSTEM_ERRORS[code];
  if (known !== undefined) return known;
  if (/_ALERT_/.test(code)) return 'the other side refused our TLS';
  if (/^ERR_SSL|^EPROTO/.test(code)) return 'the other side does not speak our TLS on that port';
  if (/^WS_ERR|^HPE_/.test(code)) return 'the other side breaks the rules of WebSocket or HTTP';
  return code === '' ? 'broken by the other side' : code;
}

/** Why a proxy that answered CONNECT with this status (RFC 9110 §15) does not let us through. */
export function describeProxyStatus(status: number, hasCredentials: boolean): string {
  switch (status) {
    // tinyproxy says 401 to a wrong login and 500 where it cannot connect.
    case 401:
    case 407:
      return hasCredentials
        ? 'the proxy refuses our login: check user and password in streams.proxy'
        : 'the proxy wants a login: set streams.proxy to http://user:password@host:port';
    case 400:
    case 405:
    case 501:
      return 'the proxy does not know CONNECT: is streams.proxy an HTTP proxy?';
    case 403:
      return 'the proxy forbids this destination: have it allow CONNECT, or let the peer listen on port 443';
    case 500:
    case 502:
    case 503:
    case 504:
      return 'the proxy does not reach the other side: check that it listens and that the proxy has a route';
    default:
      return `the proxy refused with status ${status}`;
  }
}

function codeOf(error: unknown): string {
  if (typeof error !== 'object' || error === null || !('code' in error)) return '';
  return String(error.code);
}

const UNTRUSTED = 'no authority that we know vouches for the certificate of the other side';

const SYSTEM_ERRORS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused: nothing listens on that port, or a firewall rejects it',
  ECONNRESET: 'reset by the other side, or by a firewall on the way',
  EPIPE: 'reset by the other side, or by a firewall on the way',
  ECONNABORTED: 'reset by the other side, or by a firewall on the way',
  ETIMEDOUT: 'the other side fell silent',
  EHOSTUNREACH: 'no route to the other side',
  ENETUNREACH: 'no route to the other side',
  EADDRNOTAVAIL: 'no address of ours leads to the other side',
  EACCES: 'the firewall of this machine forbids it',
  EPERM: 'the firewall of this machine forbids it',
  EMFILE: 'this process has too many files open',
  ENFILE: 'this machine has too many files open',
  ENOTFOUND: 'the name of the proxy does not resolve: check streams.proxy, and DNS',
  EAI_AGAIN: 'the name of the proxy does not resolve: DNS does not answer',
  CERT_HAS_EXPIRED: 'the certificate of the other side expired, or our clock is wrong',
  CERT_NOT_YET_VALID: 'the certificate of the other side is not valid yet, or our clock is wrong',
  SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED,
  DEPTH_ZERO_SELF_SIGNED_CERT: UNTRUSTED,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNTRUSTED,
  CERT_SIGNATURE_FAILURE: UNTRUSTED,
  ERR_TLS_CERT_ALTNAME_INVALID:
    'the certificate of the other side is for another name: use the name that it holds',
};
