/**
 * Why a connection to a broker did not come about or ended, in words that name the cure. The texts are
 * constant: they stand in logs, where addresses have no place.
 */
export function describeProblem(error: unknown): string {
  const { code, message } = fieldsOf(error);
  if (typeof code === 'number') return MQTT_REASONS[code] ?? `refused by the broker (${code})`;
  const known = SYSTEM_ERRORS[code];
  if (known !== undefined) return known;
  if (/_ALERT_/.test(code)) return REFUSED_CERTIFICATE;
  if (/^ERR_OSSL|^ERR_SSL|PEM/.test(code)) return UNREADABLE_CERTIFICATE;
  if (/connack timeout/i.test(message)) return NO_ANSWER;
  if (/keepalive timeout/i.test(message)) return 'the broker fell silent';
  return code === '' ? 'not an MQTT broker, or one that does not follow MQTT' : code;
}

/**
 * Whether an attempt with MQTT 5 may have failed for the version. Brokers of 3.1.1 answer with their own
 * "unacceptable protocol version" (0x01), with 0x84, with a packet that MQTT 5 cannot read, or just
 * close. What has another code, or is a matter of time, has another cause.
 */
export function mayBeOlderProtocol(error: unknown): boolean {
  if (error === undefined) return true;
  const { code, message } = fieldsOf(error);
  return code === 0x84 || code === 0x01 || (code === '' && !/timeout/i.test(message));
}

export const CLOSED_BY_BROKER =
  'closed by the broker: is its port for TLS (mqtts://) or not (mqtt://), or does another device use this name?';
const RESET = 'connection reset: is the port of the broker for TLS (mqtts://) or not (mqtt://)?';

const NO_ANSWER = 'no answer: check the address, the route and the firewall';
const WRONG_AUTHORITY = 'the certificate of the broker is not from our authority: check ca';
const REFUSED_CERTIFICATE =
  'the broker refuses our certificate: check certificate and privateKey, and that its authority is known there';
const UNREADABLE_CERTIFICATE = 'ca, certificate or privateKey does not read, or they do not fit';
const WRONG_LOGIN = 'the broker refuses our login: check username and password, or the certificate';
const NOT_AUTHORISED = 'the broker does not authorise us: check its access list for this name';

const SYSTEM_ERRORS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused: nothing listens on that port',
  ENOTFOUND: 'the name of the broker does not resolve: check it, and DNS',
  EAI_AGAIN: 'the name of the broker does not resolve: DNS does not answer',
  ETIMEDOUT: NO_ANSWER,
  EHOSTUNREACH: 'no route to the broker',
  ENETUNREACH: 'no route to the broker',
  ECONNRESET: RESET,
  EMSGSIZE: 'the broker sends a message larger than any of the fleet',
  EPIPE: RESET,
  SELF_SIGNED_CERT_IN_CHAIN: WRONG_AUTHORITY,
  DEPTH_ZERO_SELF_SIGNED_CERT: WRONG_AUTHORITY,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: WRONG_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT: WRONG_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: WRONG_AUTHORITY,
  CERT_SIGNATURE_FAILURE: WRONG_AUTHORITY,
  CERT_HAS_EXPIRED: 'the certificate of the broker expired, or our clock is wrong',
  CERT_NOT_YET_VALID: 'the certificate of the broker is not valid yet, or our clock is wrong',
  ERR_TLS_CERT_ALTNAME_INVALID:
    'the certificate of the broker is for another name: use the name that it holds',
  EPROTO: 'the broker does not speak TLS on that port: use mqtt:// or another port',
  ERR_SSL_WRONG_VERSION_NUMBER:
    'the broker does not speak TLS on that port: use mqtt:// or another port',
};

/** CONNACK, SUBACK and DISCONNECT: MQTT 3.1.1 §3.2.2.3, MQTT 5 §2.4. */
const MQTT_REASONS: Readonly<Record<number, string>> = {
  2: 'the broker refuses our client identifier',
  3: 'the broker is not available',
  4: WRONG_LOGIN,
  5: NOT_AUTHORISED,
  128: 'the broker refuses without a reason: check its access list for this name',
  133: 'the broker refuses our client identifier',
  134: WRONG_LOGIN,
  135: NOT_AUTHORISED,
  136: 'the broker is not available',
  137: 'the broker is busy',
  138: 'the broker banned us',
  139: 'the broker shuts down',
  140: WRONG_LOGIN,
  141: 'the broker heard nothing from us for too long',
  142: 'another client took over our name: do two devices share one identity?',
  149: 'a message was too large for the broker',
  151: 'a quota of the broker is used up',
};

function fieldsOf(error: unknown): { readonly code: string | number; readonly message: string } {
  if (!(error instanceof Error)) return { code: '', message: String(error) };
  const code = 'code' in error ? error.code : '';
  const isKnown = typeof code === 'string' || typeof code === 'number';
  return { code: isKnown ? code : '', message: error.message };
}
