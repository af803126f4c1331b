/** Lays rows out in columns as wide as their widest cell; the first row is the heading. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  return rows
    .map((row) =>
      row
        .map((cell, column) =>
          column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** A line below a row of a table: what it tells, and what that is. */
export type Detail = readonly [label: string, text: string];

/** Lays rows out in columns, with the details of each below it. */
export function formatSections(
  heading: readonly string[],
  sections: readonly { readonly row: readonly string[]; readonly details: readonly Detail[] }[],
): string {
  const [first = '', ...rows] = formatTable([heading, ...sections.map(({ row }) => row)]).split(
    '\n',
  );
  const lines = rows.flatMap((row, i) => [row, ...(sections[i]?.details ?? []).map(formatDetail)]);
  return [first, ...lines].join('\n');
}

export function formatDetail([label, text]: Detail): string {
  return `  ${label.padEnd(LABEL_WIDTH)}${text}`;
}

const LABEL_WIDTH = 6;

/** `1.4 MiB`, `312 B` */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${units[unit] ?? ''}`;
}

/** `12.3 ms`, `-` for an absent time. */
export function formatMs(ms: number | undefined): string {
  return ms === undefined ? '-' : `${ms.toFixed(1)} ms`;
}

/** `12 s ago`, `3 min ago`, `never` for an absent time. */
export function formatAgo(unixMs: number | undefined, nowUnixMs: number): string {
  return unixMs === undefined ? 'never' : `${formatSpan(nowUnixMs - unixMs)} ago`;
}

/** `12 s`, `3 min`, `5 h` */
export function formatSpan(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} d`;
}
