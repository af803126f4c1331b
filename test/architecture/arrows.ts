import { posix } from 'node:path';
import ts from 'typescript';

/** A source file: its path from the top of the checkout, and its text. */
export interface Source {
  readonly path: string;
  readonly text: string;
}

/** npm packages that core may import. */
const PURE_PACKAGES: ReadonlySet<string> = new Set(['valibot']);

/**
 * Returns one sentence for each import that goes against the arrows `plugins → core`,
 * `openwrt → plugins, core`, `core → nothing`, types included, and for each cycle of modules that
 * load each other inside core. `packages` are the npm packages that the product may depend on.
 */
export function brokenArrows(
  sources: readonly Source[],
  packages: ReadonlySet<string>,
): readonly string[] {
  const graph = new Map(sources.map((source) => [source.path, imports(source)]));
  const broken: string[] = [];
  for (const [from, targets] of graph) {
    for (const target of targets) {
      const why = brokenRule(from, target, packages);
      if (why !== undefined) broken.push(`${from} imports ${target}: ${why}`);
    }
  }
  const loaded = new Map(sources.map((source) => [source.path, imports(withoutTypes(source))]));
  return [...broken, ...cycles(loaded).map((cycle) => `cycle: ${cycle.join(' → ')}`)];
}

/** What a file imports, types included: paths from the top for files, specifiers for the rest. */
function imports({ path, text }: Source): readonly string[] {
  return ts
    .preProcessFile(text, true, true)
    .importedFiles.map(({ fileName }) =>
      fileName.startsWith('.') ? posix.join(posix.dirname(path), fileName) : fileName,
    );
}

/** The same file without its imports of nothing but types, which are erased and load nothing. */
function withoutTypes({ path, text }: Source): Source {
  return { path, text: text.replace(/^(import|export) type [^'"]* from ['"][^'"]*['"];?/gm, '') };
}

function brokenRule(
  from: string,
  target: string,
  packages: ReadonlySet<string>,
): string | undefined {
  const [top = '', folder] = from.split('/');
  if (isFile(target)) {
    if (target.startsWith('..')) return 'it lies outside of the checkout';
    if (target.startsWith(`${top}/${top === 'plugins' ? `${folder}/` : ''}`)) return undefined;
    switch (top) {
      case 'core':
        return 'core imports nothing but core';
      case 'plugins':
        return target.startsWith('core/') ? undefined : 'a plugin imports itself and core only';
      default:
        return /^(core|plugins|dist)\//.test(target) ? undefined : 'the product imports no tests';
    }
  }
  if (top === 'core') {
    const isPure = PURE_PACKAGES.has(packageName(target));
    if (!isPure) return 'core imports no Node and no impure package';
  }
  if (target.startsWith('node:') || packages.has(packageName(target))) return undefined;
  return 'it is not among the dependencies in package.json';
}

function isFile(target: string): boolean {
  return /^(\.\.|core|plugins|openwrt|test|rootfs|dist)\//.test(target);
}

function packageName(specifier: string): string {
  return /^(@[^/]+\/)?[^/]+/.exec(specifier)?.[0] ?? specifier;
}

/** The cycles inside core that a depth-first walk meets, each as the files along it. */
function cycles(graph: ReadonlyMap<string, readonly string[]>): readonly (readonly string[])[] {
  const found: string[][] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): void => {
    const start = path.indexOf(file);
    if (start >= 0) found.push([...path.slice(start), file]);
    if (start >= 0 || done.has(file)) return;
    path.push(file);
    for (const target of graph.get(file) ?? []) if (target.startsWith('core/')) visit(target);
    path.pop();
    done.add(file);
  };
  for (const file of graph.keys()) if (file.startsWith('core/')) visit(file);
  return found;
}
