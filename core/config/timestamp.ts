import { failed, ok, type Outcome } from '../sansio/outcome.ts';

/**
 * Reads a time of RFC 3339 §5.6 and returns the milliseconds since 1970. There are no leap seconds in
 * that count, so a 60th second is none.
 */
export function parseTimestamp(text: string): Outcome<number, 'not-a-timestamp'> {
  const match = TIMESTAMP.exec(text);
  if (match === null) return failed('not-a-timestamp');
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = match
    .slice(1, 7)
    .map(Number);
  const [offsetHour, offsetMinute] = [Number(match[9] ?? 0), Number(match[10] ?? 0)];
  const exists =
    month >= 1 && month <= 12 && day >= 1 && day <= daysIn(year, month) && hour < 24 && second < 60;
  if (!exists || minute >= 60 || offsetHour >= 24 || offsetMinute >= 60) {
    return failed('not-a-timestamp');
  }
  const offset = (match[8] === '-' ? -1 : 1) * (offsetHour * 60 + offsetMinute);
  const minutes = daysSince1970(year, month, day) * 1440 + hour * 60 + minute - offset;
  const millis = Number((match[7] ?? '').padEnd(3, '0').slice(0, 3));
  return ok(minutes * 60_000 + second * 1000 + millis);
}

const TIMESTAMP =
  /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))$/;

function daysIn(year: number, month: number): number {
  const [nextYear, nextMonth] = month === 12 ? [year + 1, 1] : [year, month + 1];
  return daysSince1970(nextYear, nextMonth, 1) - daysSince1970(year, month, 1);
}

/** Counts years from March, so that the leap day is the last of its year. */
function daysSince1970(year: number, month: number, day: number): number {
  const marchYear = month <= 2 ? year - 1 : year;
  const monthFromMarch = (month + 9) % 12;
  const leapDays =
    Math.floor(marchYear / 4) - Math.floor(marchYear / 100) + Math.floor(marchYear / 400);
  const dayOfYear = Math.floor((153 * monthFromMarch + 2) / 5) + day - 1;
  return marchYear * 365 + leapDays + dayOfYear - DAYS_TO_1970;
}

/** From the first of March of the year 0. */
const DAYS_TO_1970 = 719_468;
