import t from 'tap';
import { HOST_IS_LITTLE_ENDIAN } from '../../../../core/netlink/byte-order.ts';
import {
  decodeConnection,
  decodeConnectionEvent,
} from '../../../../core/netlink/conntrack/connection.ts';
import { filterFamilies, matchesConnection } from '../../../../core/netlink/conntrack/filter.ts';
import { encodeConnectionRemoval } from '../../../../core/netlink/conntrack/request.ts';
import { MessageFlag } from '../../../../core/netlink/constants.ts';
import { MessageWriter } from '../../../../core/netlink/message-writer.ts';
import { readMessages } from '../../../../core/netlink/message.ts';
import { decodeHex, encodeHex } from '../../../../core/sansio/hex.ts';
import { prefix } from '../../../netns/nftables-rules.ts';
import { CONNECTION, REMOVAL } from './messages.ts';

const elsewhere = HOST_IS_LITTLE_ENDIAN ? false : 'captured on a little-endian machine';
const message = readMessages(decodeHex(CONNECTION)!).messages[0]!;
const connection = decodeConnection(message)!;

await t.test('reads what the kernel sends', { skip: elsewhere }, async (t) => {
  t.strictSame(connection, {
    original: {
      source: '10.0.0.1',
      destination: '10.0.0.2',
      protocol: 17,
      sourcePort: 1000,
      destinationPort: 53,
    },
    reply: {
      source: '10.0.0.2',
      destination: '10.0.0.1',
      protocol: 17,
      sourcePort: 53,
      destinationPort: 1000,
    },
    id: 0xc415_1e28,
    status: 8,
    mark: 5,
    zone: 0,
    timeoutSeconds: 99,
    tcpState: undefined,
    sent: { packets: 0, bytes: 0 },
    received: { packets: 0, bytes: 0 },
  });
});

await t.test('asks to forget as conntrack does', { skip: elsewhere }, async (t) => {
  const { original, zone } = connection;
  const request = encodeConnectionRemoval(new MessageWriter(), { original, zone, id: undefined });
  t.equal(encodeHex(request), REMOVAL);
});

await t.test('tells a new connection from a changed one and from its end', async (t) => {
  t.equal(decodeConnectionEvent(message)?.type, 'update');
  t.equal(decodeConnectionEvent({ ...message, flags: MessageFlag.create })?.type, 'new');
  t.equal(decodeConnectionEvent({ ...message, type: 0x102 })?.type, 'destroy');
  t.equal(decodeConnectionEvent({ ...message, type: 0x101 }), undefined);
  t.equal(decodeConnectionEvent({ ...message, type: 0xa00 }), undefined);
});

await t.test('means the connections of which everything said is so', async (t) => {
  const matches = (filter: Parameters<typeof matchesConnection>[1]) =>
    matchesConnection(connection, filter);
  t.ok(matches({}));
  t.ok(matches({ protocol: 17, original: { destinationPort: 53 } }));
  t.notOk(matches({ protocol: 6, original: { destinationPort: 53 } }));
  t.notOk(matches({ protocol: 17, original: { destinationPort: 54 } }));
  t.ok(matches({ reply: { destination: prefix('10.0.0.0/24') } }));
  t.notOk(matches({ reply: { destination: prefix('10.0.1.0/24') } }));
  t.ok(matches({ mark: { value: 1, mask: 3 } }));
  t.notOk(matches({ mark: { value: 1, mask: 7 } }));
  t.notOk(matches({ family: 6 }));
  t.notOk(matches({ zone: 1 }));
});

await t.test('asks for no family that cannot match', async (t) => {
  t.strictSame(filterFamilies({}), [4, 6]);
  t.strictSame(filterFamilies({ family: 6 }), [6]);
  t.strictSame(filterFamilies({ original: { source: prefix('10.0.0.0/8') } }), [4]);
  t.strictSame(filterFamilies({ family: 4, reply: { source: prefix('fd00::/8') } }), []);
});
