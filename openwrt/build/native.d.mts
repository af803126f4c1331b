/** Node's names of the CPUs that the native file is built for. */
export const architectures: readonly string[];

/** Compiles the native file; returns its path. */
export function buildNative(arch?: string, directory?: string): Promise<string>;
