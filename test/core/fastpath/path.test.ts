import t from 'tap';
import { readPath, readSourcePath, writePath, writeSource } from '../../../core/fastpath/path.ts';
import type { IpAddress } from '../../../core/net/ip-address.ts';
import { parseSocketAddress, type SocketAddress } from '../../../core/net/socket-address.ts';

const arena = new ArrayBuffer(256);

await t.test('the way back is the socket, the sender and the address that was asked', async (t) => {
  for (const [remote, local] of [
    ['192.0.2.1:7', '198.51.100.9'],
    ['[2001:db8::1]:7', '2001:db8::9'],
  ] as const) {
    const path = { fd: 5, remote: address(remote), local: local as IpAddress };
    writeSource(arena, 64, { ...path, ifindex: 3 });
    t.same(readSourcePath(arena, 64, 5), path, 'routes decide about the interface');
  }
});

await t.test('a link-local sender is on one interface only', async (t) => {
  for (const remote of ['[fe80::1]:7', '[febf::1]:7', '[fec0::1]:7', '[fe8::1]:7']) {
    const path = { fd: 5, remote: address(remote), local: 'fe80::9' as IpAddress, ifindex: 3 };
    writeSource(arena, 64, path);
    const isLinkLocal = /fe80|febf/.test(remote);
    t.equal(readSourcePath(arena, 64, 5)?.ifindex, isLinkLocal ? 3 : undefined, remote);
    writePath(arena, 0, path);
    t.equal(readPath(arena, 0)?.ifindex, isLinkLocal ? 3 : undefined, remote);
  }
});

function address(text: string): SocketAddress {
  const parsed = parseSocketAddress(text);
  if (!parsed.ok) throw new Error(parsed.why);
  return parsed.value;
}
