/** Compiles the fast path where its sources changed; returns the paths of the modules. */
export function buildAssembly(): Promise<{ readonly simd: string; readonly plain: string }>;
