import * as v from 'valibot';
import { LIMITS } from './defaults.ts';
import { errorsOf, type Parsed } from './error.ts';
import type { Configuration } from './configuration.ts';
import { interfaceName, key, limited, name, wholeNumber } from './field.ts';
import type { Name } from './name.ts';

/**
 * What a device needs to find its fleet and to know whom to believe; it lies on the device and comes
 * from nobody else. With a bootstrap the device is in fleet mode, without one it stands alone.
 */
export interface Bootstrap {
  readonly fleet: Name;
  readonly device: Name;
  /** `mqtt://host:port` or `mqtts://host:port`, in order of preference. */
  readonly brokers: readonly string[];
  /** Paths of PEM files for TLS. */
  readonly ca?: string;
  readonly certificate?: string;
  readonly privateKey?: string;
  readonly username?: string;
  /** Secret. */
  readonly password?: string;
  /** Ed25519 public keys, 32 bytes each: whoever holds one of them may configure this device. */
  readonly operatorKeys: readonly Uint8Array[];
  /** Secret that enrols the device once; it is never sent. */
  readonly token?: string;
  readonly interface?: LocalInterface;
}

/**
 * What the router decides and not its fleet: its firewall opens the port and names the interface. They
 * hold whatever a desired state says.
 */
export interface LocalInterface {
  readonly name?: string;
  readonly listenPort?: number;
}

/** Returns the configuration with the values that this device has of its own. */
export function onThisDevice(configuration: Configuration, local: LocalInterface): Configuration {
  return { ...configuration, interface: { ...configuration.interface, ...local } };
}

export function parseBootstrap(json: unknown): Parsed<Bootstrap> {
  const result = v.safeParse(bootstrapSchema, json);
  if (!result.success) return { ok: false, errors: errorsOf(result.issues) };
  const { certificate, privateKey } = result.output;
  if ((certificate === undefined) !== (privateKey === undefined)) {
    const path = certificate === undefined ? 'certificate' : 'privateKey';
    const message = 'is missing: a certificate and its private key go together';
    return { ok: false, errors: [{ path, message }] };
  }
  return { ok: true, value: result.output };
}

const path = v.pipe(v.string(), v.regex(/^\/[^\0]{1,1023}$/, 'must be an absolute path'));
const secret = v.pipe(
  v.string(),
  v.minLength(1, 'must not be empty'),
  v.maxLength(256, 'must be at most 256 characters'),
);

export const bootstrapSchema: v.GenericSchema<unknown, Bootstrap> = v.strictObject({
  fleet: v.pipe(name, v.description('Name of the fleet.')),
  device: v.pipe(
    name,
    v.description('Name of this device; the broker should tie it to its login.'),
  ),
  brokers: v.pipe(
    limited(
      v.pipe(
        v.string(),
        v.regex(
          /^mqtts?:\/\/(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(:[1-9]\d{0,4})?$/,
          'must be mqtt://host:port or mqtts://host:port',
        ),
      ),
      LIMITS.brokers,
    ),
    v.minLength(1, 'must name at least one broker'),
    v.description('Brokers in order of preference.'),
  ),
  ca: v.exactOptional(v.pipe(path, v.description('PEM file of the broker’s authority.'))),
  certificate: v.exactOptional(v.pipe(path, v.description('PEM file of this device.'))),
  privateKey: v.exactOptional(v.pipe(path, v.description('PEM file of the certificate’s key.'))),
  username: v.exactOptional(v.pipe(secret, v.description('Login at the broker.'))),
  password: v.exactOptional(v.pipe(secret, v.description('Password at the broker.'))),
  operatorKeys: v.pipe(
    limited(key, LIMITS.operatorKeys),
    v.minLength(1, 'must name at least one key'),
    v.description('Ed25519 public keys in base64 of those who may configure this device.'),
  ),
  token: v.exactOptional(v.pipe(secret, v.description('Secret that enrols this device once.'))),
  interface: v.exactOptional(
    v.pipe(
      v.strictObject({
        name: v.exactOptional(
          v.pipe(interfaceName, v.description('Name of the tunnel interface.')),
        ),
        listenPort: v.exactOptional(
          v.pipe(wholeNumber(1, 65_535), v.description('UDP port of the tunnel.')),
        ),
      }),
      v.description('Values of this device, which hold whatever its fleet says.'),
    ),
  ),
});
