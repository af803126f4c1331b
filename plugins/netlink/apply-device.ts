import type { Device } from '../../core/netlink/wireguard/device.ts';
import { WIREGUARD_KIND } from '../../core/netlink/wireguard/constants.ts';
import type { DeviceSettings, PeerSettings } from '../../core/netlink/wireguard/settings.ts';
import { countChanges, planDevice, wholePeer } from '../../core/netlink/wireguard/wanted-device.ts';
import type {
  WireguardDevice,
  WireguardFailure,
  WireguardOutcome,
  WireguardProblem,
} from '../../core/plugin/wireguard-device.ts';
import { encodeBase64 } from '../../core/sansio/base64.ts';
import { equalInConstantTime } from '../../core/sansio/crypto.ts';
import { failed, ok } from '../../core/sansio/outcome.ts';
import type { Answer, Refusal } from './refusal.ts';

/** What WireGuard devices need of a kernel. */
export interface DeviceKernel {
  /** The kind of a link; ENODEV where there is none of the name. */
  readKind(name: string): Answer<string | undefined>;
  /** Refused with EOPNOTSUPP where the kernel has no links of this kind. */
  createLink(name: string): Refusal | undefined;
  removeLink(name: string): Refusal | undefined;
  /** Refused with ENOENT where the kernel has no WireGuard, ENODEV and EOPNOTSUPP where it is no device. */
  observe(name: string): Answer<Device>;
  /** Carries out the pieces of a change in order, the later ones also where an earlier one is refused. */
  change(name: string, settings: DeviceSettings): readonly RefusedSettings[];
}

export interface RefusedSettings {
  readonly settings: DeviceSettings;
  readonly refusal: Refusal;
}

/** Returns the devices of a kernel. */
export function wireguardDevices(kernel: DeviceKernel): WireguardDevice {
  const changeOne = (name: string, peer: PeerSettings): WireguardOutcome<undefined> => {
    const refused = kernel.change(name, { peers: [peer] });
    return refused.length === 0 ? succeeded(undefined) : notChanged(name, refused);
  };
  return {
    create: (name) => createDevice(name, kernel),
    remove: (name) => removeDevice(name, kernel),
    apply: (wanted) => applyDevice(wanted, kernel),
    read(name) {
      const read = kernel.observe(name);
      return read.ok ? succeeded(read.value) : notDone(name, read.refusal);
    },
    putPeer: (name, peer) => changeOne(name, wholePeer(peer)),
    changePeer: (name, publicKey, { endpoint, persistentKeepalive }) =>
      changeOne(name, { publicKey, updateOnly: true, endpoint, persistentKeepalive }),
    removePeer: (name, publicKey) => changeOne(name, { publicKey, remove: true }),
  };
}

function createDevice(name: string, kernel: DeviceKernel): ReturnType<WireguardDevice['create']> {
  const kind = kernel.readKind(name);
  if (kind.ok && kind.value === WIREGUARD_KIND) return succeeded({ isNew: false });
  if (kind.ok) return otherKind(name, kind.value, 'EEXIST');
  if (kind.refusal.code !== 'ENODEV') return notDone(name, kind.refusal);
  const refusal = kernel.createLink(name);
  if (refusal === undefined) return succeeded({ isNew: true });
  if (refusal.code !== 'EOPNOTSUPP') return notDone(name, refusal);
  return problem('no-module', `device ${name}`, refusal.code, NO_MODULE);
}

function removeDevice(name: string, kernel: DeviceKernel): ReturnType<WireguardDevice['remove']> {
  const kind = kernel.readKind(name);
  if (kind.ok && kind.value !== WIREGUARD_KIND) return otherKind(name, kind.value, 'EOPNOTSUPP');
  const refusal = kind.ok ? kernel.removeLink(name) : kind.refusal;
  if (refusal === undefined) return succeeded({ wasThere: true });
  return refusal.code === 'ENODEV' ? succeeded({ wasThere: false }) : notDone(name, refusal);
}

/** What counts is what is read in the end: the kernel passes over some things without a word. */
function applyDevice(
  wanted: Parameters<WireguardDevice['apply']>[0],
  kernel: DeviceKernel,
): ReturnType<WireguardDevice['apply']> {
  let changes = 0;
  for (let round = 1; ; round++) {
    const observed = kernel.observe(wanted.name);
    if (!observed.ok) return notDone(wanted.name, observed.refusal);
    const plan = planDevice(wanted, observed.value);
    const count = countChanges(plan);
    if (count === 0) return succeeded({ changes });
    if (round > MOST_ROUNDS) return undone(plan, observed.value);
    const refused = kernel.change(wanted.name, plan);
    if (refused.length > 0) return notChanged(wanted.name, refused);
    changes += count;
  }
}

/** Another program may change the device between our writing and our reading once, not for ever. */
const MOST_ROUNDS = 2;

/** Of thousands of failures nobody reads more. */
const MOST_FAILURES = 64;

const NO_MODULE =
  'kmod-wireguard is not loaded: install the package kmod-wireguard, or run modprobe wireguard';

function succeeded<Value>(value: Value): WireguardOutcome<Value> {
  return { ...ok(value), failures: [] };
}

function problem(
  why: WireguardProblem,
  object: string,
  code: string,
  message: string,
): WireguardOutcome<never> {
  return { ...failed(why), failures: [{ object, code, message }] };
}

function otherKind(name: string, kind: string | undefined, code: string): WireguardOutcome<never> {
  const words = kind === undefined ? 'another interface' : `an interface of kind ${kind}`;
  return problem('refused', `device ${name}`, code, `there is ${words} of this name`);
}

function notDone(name: string, refusal: Refusal): WireguardOutcome<never> {
  return problem(problemOf(refusal), `device ${name}`, refusal.code, explain(refusal));
}

function notChanged(name: string, refused: readonly RefusedSettings[]): WireguardOutcome<never> {
  const whole = refused.find(({ refusal }) => problemOf(refusal) !== 'refused');
  if (whole !== undefined) return notDone(name, whole.refusal);
  const failures = refused.slice(0, MOST_FAILURES).map(({ settings, refusal }) => ({
    object: objectOf(name, settings, refusal),
    code: refusal.code,
    message: explain(refusal),
  }));
  return { ...failed('refused'), failures };
}

function undone(left: DeviceSettings, { name, publicKey }: Device): WireguardOutcome<never> {
  const failures = left.peers.slice(0, MOST_FAILURES).map((peer): WireguardFailure => {
    const isOwn = publicKey !== undefined && equalInConstantTime(peer.publicKey, publicKey);
    const message = isOwn ? 'this is the key of the device itself' : UNDONE;
    return { object: peerName(peer), code: 'UNDONE', message };
  });
  if (failures.length > 0) return { ...failed('refused'), failures };
  return problem('refused', `device ${name}`, 'UNDONE', UNDONE);
}

const UNDONE = 'the kernel or another program undoes it';

function problemOf({ code }: Refusal): WireguardProblem {
  if (code === 'EPERM') return 'not-permitted';
  if (code === 'ENOENT') return 'no-module';
  return code === 'ENODEV' || code === 'EOPNOTSUPP' ? 'no-device' : 'refused';
}

/** Says in the words of the field what the kernel's errno leaves to guess. */
function explain({ code, message }: Refusal): string {
  switch (code) {
    case 'EPERM':
      return 'it takes CAP_NET_ADMIN';
    case 'ENOENT':
      return NO_MODULE;
    case 'ENODEV':
      return 'there is no interface of this name';
    case 'EOPNOTSUPP':
      return 'the interface of this name is none of WireGuard';
    case 'EADDRINUSE':
      return 'another program uses this UDP port';
    case 'ERANGE':
      return 'this is no name of an interface: 15 characters at most';
    default:
      return message;
  }
}

function objectOf(name: string, { listenPort, peers }: DeviceSettings, { code }: Refusal): string {
  if (code === 'EADDRINUSE' && listenPort !== undefined) return `listen port ${listenPort}`;
  const [peer, ...others] = peers;
  if (peer === undefined) return `device ${name}`;
  return others.length === 0 ? peerName(peer) : `${peers.length} peers of ${name}`;
}

function peerName({ publicKey }: PeerSettings): string {
  return `peer ${encodeBase64(publicKey)}`;
}
