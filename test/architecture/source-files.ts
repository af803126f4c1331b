import { readdirSync } from 'node:fs';

/**
 * The files under `folder` whose names end with `ending`, as paths from the top of the checkout, in
 * a fixed order. The AssemblyScript sources, which are another language, are left out.
 */
export function sourceFiles(folder: string, ending: string): readonly string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => `${folder}/${name}`)
    .filter((path) => path.endsWith(ending) && !path.startsWith('core/fastpath/assembly/'))
    .sort();
}
