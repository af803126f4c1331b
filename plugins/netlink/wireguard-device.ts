import { MessageWriter } from '../../core/netlink/message-writer.ts';
import { encodeLinkCreation, encodeLinkRemoval } from '../../core/netlink/rtnetlink/link.ts';
import { WIREGUARD_FAMILY, WIREGUARD_KIND } from '../../core/netlink/wireguard/constants.ts';
import {
  assembleDevice,
  decodeDevicePart,
  encodeDeviceQuery,
  type Device,
} from '../../core/netlink/wireguard/device.ts';
import {
  encodeSettings,
  splitSettings,
  type DeviceSettings,
} from '../../core/netlink/wireguard/settings.ts';
import { native } from '../../core/plugin/native.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { wireguardDevice, type WireguardDevice } from '../../core/plugin/wireguard-device.ts';
import { wireguardDevices, type DeviceKernel, type RefusedSettings } from './apply-device.ts';
import { GenericNetlink } from './generic-netlink.ts';
import { ownRefusal, type Answer, type Refusal } from './refusal.ts';
import { Rtnetlink } from './rtnetlink.ts';

/** Returns the plugin that makes and configures WireGuard interfaces of the kernel. */
export function createWireguardDevice(): PluginDefinition<WireguardDevice> {
  return {
    name: 'wireguard-device',
    provides: wireguardDevice,
    needs: [native],
    create(host) {
      const calls = host.use(native);
      const generic = GenericNetlink.open(calls, WIREGUARD_FAMILY);
      if (!generic.ok) {
        return { skip: `this kernel has no generic netlink: ${generic.refusal.message}` };
      }
      const route = Rtnetlink.open(calls);
      if (!route.ok) {
        generic.value.close();
        return { skip: `this kernel has no rtnetlink: ${route.refusal.message}` };
      }
      return {
        api: wireguardDevices(new NetlinkDevices(generic.value, route.value)),
        stop() {
          generic.value.close();
          route.value.close();
        },
      };
    },
  };
}

class NetlinkDevices implements DeviceKernel {
  readonly #generic: GenericNetlink;
  readonly #route: Rtnetlink;
  readonly #writer = new MessageWriter();

  constructor(generic: GenericNetlink, route: Rtnetlink) {
    this.#generic = generic;
    this.#route = route;
  }

  readKind(name: string): Answer<string | undefined> {
    const link = this.#route.readLink(name);
    return link.ok ? { ok: true, value: link.value.kind } : link;
  }

  createLink(name: string): Refusal | undefined {
    return this.#route.change([encodeLinkCreation(name, WIREGUARD_KIND)])[0];
  }

  removeLink(name: string): Refusal | undefined {
    const link = this.#route.readLink(name);
    return link.ok ? this.#route.change([encodeLinkRemoval(link.value.index)])[0] : link.refusal;
  }

  observe(name: string): Answer<Device> {
    const { malformed } = this.#generic.stats;
    const parts = this.#generic.dump(
      (family) => encodeDeviceQuery(family, name),
      (message, family) => decodeDevicePart(message, family),
    );
    if (!parts.ok) return parts;
    const device = assembleDevice(parts.value);
    const isWhole = this.#generic.stats.malformed === malformed;
    if (device !== undefined && isWhole) return { ok: true, value: device };
    return {
      ok: false,
      refusal: ownRefusal('EBADMSG', 'the answer of the kernel is not readable'),
    };
  }

  change(name: string, settings: DeviceSettings): readonly RefusedSettings[] {
    return splitSettings(settings).flatMap((piece) => {
      const refusal = this.#generic.request((family) =>
        encodeSettings(this.#writer, family, name, piece),
      );
      return refusal === undefined ? [] : [{ settings: piece, refusal }];
    });
  }
}
