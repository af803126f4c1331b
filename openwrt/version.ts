declare const __VERSION__: string;
declare const __COMMIT__: string;

/** Set by the build; 'source' where the sources run unbundled. */
export const version: string = typeof __VERSION__ === 'string' ? __VERSION__ : 'source';
export const commit: string = typeof __COMMIT__ === 'string' ? __COMMIT__ : 'unknown';
