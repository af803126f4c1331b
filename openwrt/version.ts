declare const __VERSION__: string;
declare const __COMMIT__: string;
declare const __SOURCE_DATE__: number;

/** Set by the build; 'source' where the sources run unbundled. */
export const version: string = typeof __VERSION__ === 'string' ? __VERSION__ : 'source';
export const commit: string = typeof __COMMIT__ === 'string' ? __COMMIT__ : 'unknown';
/** When the sources were committed: a clock that shows less is not set. */
export const builtAtMs: number = typeof __SOURCE_DATE__ === 'number' ? __SOURCE_DATE__ * 1000 : 0;
