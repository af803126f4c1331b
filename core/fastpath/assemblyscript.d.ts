/** Lets TypeScript read `layout.ts`, whose constants are typed for AssemblyScript. */
declare type i32 = number;
declare type u32 = number;
