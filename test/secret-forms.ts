/**
 * Returns the forms in which a text shows a secret: as it is, in hexadecimal, as a list of numbers, or in
 * base64 at any of the three places that it can have in a longer base64 text.
 */
export function shownForms(secret: Uint8Array, text: string): readonly string[] {
  const bytes = Buffer.from(secret);
  const forms: Record<string, string> = {
    raw: bytes.toString('latin1'),
    hex: bytes.toString('hex'),
    'upper-case hex': bytes.toString('hex').toUpperCase(),
    numbers: [...bytes].join(),
  };
  for (const before of [0, 1, 2]) {
    const whole = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64');
    // The first and the last characters also hold bits of what stands beside it.
    const form = whole.slice(before === 0 ? 0 : 4, -4);
    forms[`base64 at ${before}`] = form;
    forms[`base64url at ${before}`] = form.replaceAll('+', '-').replaceAll('/', '_');
  }
  return Object.keys(forms).filter((name) => text.includes(forms[name] ?? ''));
}
