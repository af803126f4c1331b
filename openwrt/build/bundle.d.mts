import type { Metafile } from 'esbuild';

/** Writes a bundle; returns where it is, and what it is made of. */
export function bundle(
  name: 'router' | 'fleet',
  options?: { readonly directory?: string },
): Promise<{ readonly path: string; readonly metafile: Metafile }>;
