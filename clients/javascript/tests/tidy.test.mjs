/** The order of the sources: what imports what, and how long files are. */

import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join, normalize, resolve } from 'node:path'
import { test } from 'node:test'

const root = resolve(import.meta.dirname, '..')

/** A file that is longer does too many things. */
const LINES_MAX = 600

/** The modules that are shipped: path, text. */
const modules = new Map(
  ['src', 'samples'].flatMap((directory) =>
    readdirSync(join(root, directory), { recursive: true })
      .map((name) => join(directory, name))
      .filter((path) => /\.m?js$/.test(path))
      .map((path) => [path, readFileSync(join(root, path), 'utf8')]),
  ),
)

/** What a module imports of its neighbours, types in comments included. */
function importsOf(path, text) {
  const specifiers = text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*['"](\.[^'"]+)['"]/g)
  return new Set([...specifiers].map(([, specifier]) => normalize(join(path, '..', specifier))))
}

/** The first circle of imports; undefined if there is none. */
function findCircle(texts) {
  const isDone = new Set()
  const visit = (path, trail) => {
    if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path]
    if (isDone.has(path)) return undefined
    for (const imported of importsOf(path, texts.get(path) ?? '')) {
      const circle = visit(imported, [...trail, path])
      if (circle) return circle
    }
    isDone.add(path)
    return undefined
  }
  for (const path of texts.keys()) {
    const circle = visit(path, [])
    if (circle) return circle
  }
  return undefined
}

test('imports run in no circle, those of types included', () => {
  assert.equal(findCircle(modules)?.join(' -> '), undefined)
})

test('every import within the package leads to a module', () => {
  for (const [path, text] of modules) {
    for (const imported of importsOf(path, text)) {
      assert.ok(modules.has(imported), `${path} imports ${imported}, which is not there`)
    }
  }
})

test('a circle is found in whatever form its imports are written', () => {
  for (const back of [
    "import { a } from './a.js'",
    "export * from './a.js'",
    "import './a.js'",
    "const { a } = await import('./a.js')",
    "/** @type {import('./a.js').A} */",
  ]) {
    const texts = new Map([
      ['src/a.js', "import {\n  b,\n} from './b.js'"],
      ['src/b.js', back],
    ])
    assert.deepEqual(findCircle(texts), ['src/a.js', 'src/b.js', 'src/a.js'], back)
  }
})

test(`no module has more than ${LINES_MAX} lines, and each begins by saying what it provides`, () => {
  assert.ok(modules.size > 20)
  for (const [path, text] of modules) {
    const { length } = text.trimEnd().split('\n')
    assert.ok(length <= LINES_MAX, `${path} has ${length} lines`)
    assert.match(text, /^\/\*\* \S/, `${path} does not begin with a comment on itself`)
  }
})
