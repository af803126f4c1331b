import type { Bench } from './bench-definition.ts';
import type { RunFacts } from './report.ts';
import { formatNumber, type Measured, type Metric, type Samples } from './samples.ts';

/**
 * Draws the medians as SVG: a panel of bars for each metric, with a thin line from the least to the
 * greatest value of all rounds. Ours are the dark ones.
 */
export function plot(bench: Bench, samples: Samples, facts: RunFacts): string {
  const { rows, subjects } = samples;
  const columns = Math.min(COLUMNS, Math.max(rows.length, 1));
  const panelHeight = PANEL_HEADING + subjects.length * BAR_PITCH + PANEL_GAP;
  const width = columns * (PANEL_WIDTH + PANEL_GAP) + PANEL_GAP;
  const height = HEADING + Math.ceil(rows.length / columns) * panelHeight;
  const { cpu, cores, kernel, system, node } = facts.machine;
  const panels = rows.map((row, i) => {
    const x = PANEL_GAP + (i % columns) * (PANEL_WIDTH + PANEL_GAP);
    const y = HEADING + Math.floor(i / columns) * panelHeight;
    return panel(row, subjects, x, y);
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ` +
      `viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12" fill="#222">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    text(PANEL_GAP, 26, bench.title, 'font-size="17" font-weight="bold"'),
    text(
      PANEL_GAP,
      46,
      `${cpu}, ${cores} cores · Linux ${kernel} · ${system} · Node.js ${node} · ` +
        `medians of ${facts.rounds} rounds`,
      'fill="#666"',
    ),
    ...panels,
    '</svg>',
    '',
  ].join('\n');
}

const COLUMNS = 3;
const HEADING = 64;
const PANEL_WIDTH = 440;
const PANEL_HEADING = 24;
const PANEL_GAP = 24;
const BAR_PITCH = 20;
const BAR_HEIGHT = 14;
const LABEL_WIDTH = 200;
const VALUE_WIDTH = 60;

/** What we compare with. */
const OTHERS = /^(bare|wireguard-go|ip )/;

function panel(
  { metric, measured }: { readonly metric: Metric; readonly measured: readonly Measured[] },
  subjects: readonly string[],
  x: number,
  y: number,
): string {
  const greatest = Math.max(...measured.flatMap(({ samples }) => samples));
  const scale = (PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH) / (greatest > 0 ? greatest : 1);
  const bars = subjects.flatMap((subject, i) => {
    const one = measured.find((candidate) => candidate.subject === subject);
    if (one === undefined) return [];
    return [bar(one, scale, x, y + PANEL_HEADING + i * BAR_PITCH)];
  });
  const direction = metric.better === 'more' ? 'more is better' : 'less is better';
  const heading = `${metric.name}, ${metric.unit}`;
  return [
    text(x, y + 12, heading, 'font-weight="bold"'),
    text(x + PANEL_WIDTH, y + 12, direction, 'fill="#999" text-anchor="end"'),
    ...bars,
  ].join('\n');
}

function bar({ subject, median, samples }: Measured, scale: number, x: number, y: number): string {
  const left = x + LABEL_WIDTH;
  const [least, greatest] = [Math.min(...samples), Math.max(...samples)].map(
    (value) => left + value * scale,
  );
  const middle = y + BAR_HEIGHT / 2;
  const base = y + BAR_HEIGHT - 3;
  const color = OTHERS.test(subject) ? '#b8c4cc' : '#0b5c8a';
  return [
    text(left - 8, base, subject, 'text-anchor="end"'),
    `<rect x="${left}" y="${y}" width="${round(median * scale)}" height="${BAR_HEIGHT}" fill="${color}"/>`,
    `<path d="M${round(least)} ${middle}H${round(greatest)}" stroke="#e07b00" stroke-width="2"/>`,
    text(round(Math.max(greatest ?? 0, left + median * scale)) + 5, base, formatNumber(median)),
  ].join('\n');
}

function text(x: number, y: number, content: string, attributes = ''): string {
  const escaped = content.replace(/&/g, '&amp;').replace(/</g, '&lt;');
  return `<text x="${x}" y="${y}"${attributes === '' ? '' : ` ${attributes}`}>${escaped}</text>`;
}

function round(value: number | undefined): number {
  return Math.round((value ?? 0) * 10) / 10;
}
