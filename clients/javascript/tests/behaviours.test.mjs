/**
 * The list of behaviours in clients/README.md, which all clients are held to. A test that shows one
 * has its name in brackets at the end of its own, for example `[never-sent-twice]`.
 */

import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'

const list = readFileSync(resolve(import.meta.dirname, '../../README.md'), 'utf8')

/** The names of all tests of this client, as they are written. */
const tests = readdirSync(import.meta.dirname)
  .filter((name) => name.endsWith('.test.mjs'))
  .map((name) => readFileSync(join(import.meta.dirname, name), 'utf8'))
  .flatMap((text) => [...text.matchAll(/^\s*test\(\s*(['"`])(.*?)\1/gm)])
  .map(([, , name]) => name)

/** The behaviours that the tables of a list ascribe to a client, or that they deny it. */
function behavioursOf(markdown, client) {
  const behaviours = { yes: new Set(), no: new Set() }
  let column = -1
  for (const line of markdown.split('\n')) {
    const cells = line.split('|').map((cell) => cell.trim())
    if (cells[2] === 'behaviour') column = cells.indexOf(client)
    const [, name] = cells[1]?.match(/^`([a-z]+(?:-[a-z]+)*)`$/) ?? []
    if (!line.startsWith('|')) column = -1
    else if (name && column !== -1) {
      const answer = behaviours[cells[column]]
      assert.ok(answer, `${name} is neither a yes nor a no for ${client}: ${cells[column]}`)
      for (const known of Object.values(behaviours)) assert.ok(!known.has(name), `${name} is twice`)
      answer.add(name)
    }
  }
  return behaviours
}

/** What does not fit between a list and the names of tests. */
function faultsOf({ yes, no }, names) {
  const shown = new Set(
    names.flatMap((name) =>
      [...name.matchAll(/ \[([a-z-]+)\]/g)].map(([, behaviour]) => behaviour),
    ),
  )
  const untested = [...yes].filter((behaviour) => !shown.has(behaviour))
  const strays = [...shown].filter((behaviour) => !yes.has(behaviour))
  return [
    ...untested.map((behaviour) => `no test shows ${behaviour}`),
    ...strays.map((behaviour) =>
      no.has(behaviour)
        ? `a test shows ${behaviour}, which the list denies`
        : `a test shows ${behaviour}, which is not in the list`,
    ),
  ]
}

test('every behaviour of the list is shown by a test, and tests name no other', () => {
  const behaviours = behavioursOf(list, 'JavaScript')
  assert.ok(behaviours.yes.size > 30, `only ${behaviours.yes.size} behaviours were found`)
  assert.ok(tests.length > 80, `only ${tests.length} tests were found`)
  assert.deepEqual(faultsOf(behaviours, tests), [])
})

test('a behaviour without a test is found, and a test without a behaviour', () => {
  const made = behavioursOf(
    '| name | behaviour | Other | JavaScript |\n|---|---|---|---|\n' +
      '| `first` | A. | no | yes |\n| `second-one` | B. | no | yes |\n| `third` | C. | yes | no |\n',
    'JavaScript',
  )
  assert.deepEqual([...made.yes, ...made.no], ['first', 'second-one', 'third'])
  assert.deepEqual(faultsOf(made, ['x [first]', 'y [first] [second-one]']), [])
  assert.deepEqual(faultsOf(made, ['x [first] [third]', 'y [fourth]', 'second-one']), [
    'no test shows second-one',
    'a test shows third, which the list denies',
    'a test shows fourth, which is not in the list',
  ])
})
