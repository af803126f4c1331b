import type { Metafile } from 'esbuild';

/** Splits a bundle by npm package. */
export function weigh(
  path: string,
  metafile: Metafile,
): Promise<{ readonly table: string; readonly unexplained: readonly string[] }>;
