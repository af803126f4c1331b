import { execFileSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';

/** Whether node_modules is what the lockfile asks for: npm leaves a copy of it there when done. */
export function isInstalled() {
  const copy = 'node_modules/.package-lock.json';
  return existsSync(copy) && statSync(copy).mtimeMs >= statSync('package-lock.json').mtimeMs;
}

/** Installs exactly what the lockfile says. No package needs its install script. */
export function installPackages() {
  const parameters = ['ci', '--ignore-scripts', '--no-audit', '--no-fund'];
  execFileSync('npm', parameters, { stdio: 'inherit' });
}
