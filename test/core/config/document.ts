import { parseConfiguration, type Configuration } from '../../../core/config/configuration.ts';
import { formatConfigurationError } from '../../../core/config/error.ts';
import { encodeBase64 } from '../../../core/sansio/base64.ts';

/** A document that says only what has no default. */
export function minimal() {
  return {
    schema: 1,
    interface: { addresses: ['100.64.0.1/24'] },
    peers: [{ id: 'b', publicKey: key(1), allowedIps: ['10.2.0.0/16'] }],
  };
}

export function key(fill: number): string {
  return encodeBase64(new Uint8Array(32).fill(fill));
}

export function parsed(document: unknown): Configuration {
  const result = parseConfiguration(document);
  if (!result.ok) throw new Error(result.errors.map(formatConfigurationError).join('\n'));
  return result.value;
}

export function errorsOf(document: unknown): string[] {
  const result = parseConfiguration(document);
  return result.ok ? [] : result.errors.map(formatConfigurationError);
}
