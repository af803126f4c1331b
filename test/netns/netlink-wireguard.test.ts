import t from 'tap';
import type { Native } from '../../core/plugin/native.ts';
import { encodeGenericFamilyQuery } from '../../core/netlink/genetlink/controller.ts';
import { GenericNetlink } from '../../plugins/netlink/generic-netlink.ts';
import { key, wireguardDeviceContract } from '../contract/wireguard-device.ts';
import { inNamespace, loadSystemCalls } from './netlink-namespace.ts';
import { kernelWorld } from './wireguard-world.ts';

if (await inNamespace(import.meta.url)) await test(await loadSystemCalls());

async function test(calls: Native): Promise<void> {
  await t.test('finds a family of generic netlink by name', async (t) => {
    const open = (name: string) => {
      const opened = GenericNetlink.open(calls, name);
      if (!opened.ok) throw new Error(opened.refusal.message);
      return opened.value;
    };
    const controller = open('nlctrl');
    let found: unknown;
    const refusal = controller.request((family) => {
      found = family;
      return encodeGenericFamilyQuery('nlctrl');
    });
    t.equal(refusal, undefined);
    t.match(found, { id: 0x10, name: 'nlctrl', version: 2 });
    t.equal((found as { groups: ReadonlyMap<string, number> }).groups.get('notify'), 0x10);
    controller.close();
    t.match(
      controller.request(() => encodeGenericFamilyQuery('nlctrl')),
      { code: 'EBADF' },
    );

    const nobody = open('nobody');
    t.match(
      nobody.request(() => encodeGenericFamilyQuery('nlctrl')),
      { code: 'ENOENT' },
    );
    nobody.close();
  });

  const world = kernelWorld(calls);
  const created = world.device.create('culvert9');
  world.device.remove('culvert9');
  if (created.ok) {
    await world.close();
    await wireguardDeviceContract(t, async () => kernelWorld(calls));
    return;
  }

  await t.test('without the module it says so, and what to do', async (t) => {
    const wanted = { name: 'wg0', privateKey: key(1), listenPort: 0, fwmark: 0, peers: [] };
    const message =
      'kmod-wireguard is not loaded: install the package kmod-wireguard, or run modprobe wireguard';
    const problem = { ok: false, why: 'no-module', failures: [{ object: 'device wg0', message }] };
    t.match(world.device.create('wg0'), problem);
    t.match(world.device.apply(wanted), problem);
    t.match(world.device.read('wg0'), problem);
    t.match(world.device.removePeer('wg0', key(1)), problem);
    t.match(world.device.remove('wg0'), { ok: true, value: { wasThere: false } });
    await world.close();
    t.match(
      world.device.read('wg0'),
      { ok: false, why: 'refused' },
      'after its end it reads nothing',
    );
  });
}
