// Builds the transform of the folder it is called in: transform.js or transform.ts becomes NAME.wasm, NAME being the
// folder's name. What it imports, from npm too, goes into the component.

import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const VERSION = '1.0.0';
const WORLD = 'batch-transform';
// With all of them off a component imports nothing but what txconnect offers every transform.
const NO_FEATURES = ['stdio', 'random', 'clocks', 'http', 'fetch-event'];

const folder = process.cwd();

function fail(message) {
  console.error(message);
  process.exit(1);
}

/** The nearest folder that has `path`: this one, or one above it. */
function nearest(path, help) {
  for (let above = folder; ; above = dirname(above)) {
    if (existsSync(join(above, path))) return above;
    if (dirname(above) === above) fail(`there is no ${path} in ${folder} nor above it: ${help}`);
  }
}

/** A package that the transform's own package.json names: this file may lie elsewhere, behind a link. */
async function load(name) {
  const place = join('node_modules', name);
  const found = join(nearest(place, '`npm install --no-package-lock` brings it'), place);
  const { exports, main } = JSON.parse(await readFile(join(found, 'package.json'), 'utf8'));
  return import(pathToFileURL(join(found, exports?.import ?? main)));
}

function entry() {
  const found = ['transform.ts', 'transform.js'].filter((name) => existsSync(join(folder, name)));
  if (found.length !== 1) fail(`${folder} wants one of transform.js and transform.ts, and has ${found.length === 0 ? 'none' : 'both'}`);
  return found[0];
}

async function build() {
  const wit = join('wit', VERSION);
  const witPath = join(nearest(join(wit, 'transform.wit'), '`txconnect new transform` writes one'), wit);
  const { build: bundle } = await load('esbuild');
  const { componentize } = await load('@bytecodealliance/componentize-js');
  const output = resolve(folder, `${basename(folder)}.wasm`);
  const workplace = await mkdtemp(join(tmpdir(), 'txconnect-transform-'));
  try {
    const source = join(workplace, 'transform.js');
    await bundle({
      stdin: { contents: `export { default as batches } from './${entry()}';`, resolveDir: folder, sourcefile: 'component.js' },
      outfile: source,
      bundle: true,
      format: 'esm',
      platform: 'neutral',
      mainFields: ['module', 'main'],
      conditions: ['txconnect'],
      external: ['txconnect:*'],
      target: 'es2023',
      charset: 'utf8',
      logLevel: 'warning',
    });
    const { component } = await componentize({
      sourcePath: source,
      witPath,
      worldName: WORLD,
      disableFeatures: NO_FEATURES,
    });
    // Whoever reads the component meanwhile sees the old one or the new one.
    await writeFile(`${output}.new`, component);
    await rename(`${output}.new`, output);
    console.log(`${basename(output)}: ${(component.length / 1e6).toFixed(1)} MB`);
  } finally {
    await rm(workplace, { recursive: true, force: true });
  }
}

try {
  await build();
} catch (error) {
  // esbuild has told its own already.
  if (!Array.isArray(error.errors)) console.error(error.message);
  process.exit(1);
}
