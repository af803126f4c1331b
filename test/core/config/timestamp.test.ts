import fc from 'fast-check';
import t from 'tap';
import { parseTimestamp } from '../../../core/config/timestamp.ts';

await t.test('a time is what ECMAScript takes it for', async () => {
  const from = new Date('0001-01-02T00:00:00Z');
  const to = new Date('9999-12-30T00:00:00Z');
  fc.assert(
    fc.property(fc.date({ min: from, max: to, noInvalidDate: true }), (date) => {
      return valueOf(date.toISOString()) === date.getTime();
    }),
  );
});

await t.test('a time may have an offset and fractions of a second', async (t) => {
  const cases = [
    '1970-01-01T00:00:00Z',
    '2024-02-29T23:59:59.5Z',
    '2027-01-31T18:00:00.123+05:30',
    '2027-12-31T23:30:00-01:00',
    '2000-02-29T00:00:00.007-00:00',
  ];
  for (const text of cases) t.equal(valueOf(text), Date.parse(text), text);
  t.equal(valueOf('2027-01-31T18:00:00.123999999Z'), Date.parse('2027-01-31T18:00:00.123Z'));
});

await t.test('what is no time is refused', async (t) => {
  const cases = [
    '',
    '2027-01-31',
    '2027-01-31T18:00Z',
    '2027-01-31T18:00:00',
    '2027-01-31 18:00:00Z',
    '2027-01-31t18:00:00z',
    '2027-00-31T18:00:00Z',
    '2027-13-31T18:00:00Z',
    '2027-01-00T18:00:00Z',
    '2027-02-29T18:00:00Z',
    '2100-02-29T18:00:00Z',
    '2027-04-31T18:00:00Z',
    '2027-01-31T24:00:00Z',
    '2027-01-31T18:60:00Z',
    '2027-01-31T18:00:60Z',
    '2027-01-31T18:00:00+24:00',
    '2027-01-31T18:00:00+01:60',
    '2027-01-31T18:00:00+0100',
    '2027-01-31T18:00:00.Z',
    '2027-01-31T18:00:00Z\n',
  ];
  for (const text of cases) t.notOk(parseTimestamp(text).ok, text);
});

function valueOf(text: string): number | undefined {
  const parsed = parseTimestamp(text);
  return parsed.ok ? parsed.value : undefined;
}
