/** The sample page: logs in, sends, subscribes, and shows what arrives and what happened. */

const PROFILES = {
  agent: { key: 'my_agent_secret_key', hint: 'Gets messages and sends them.' },
  super_agent: { key: 'my_super_agent_secret_key', hint: 'May also watch agents.' },
  service: { key: 'my_service_secret_key', hint: 'May also watch agents and super agents.' },
  admin: { key: 'my_admin_secret_key', hint: 'Is there for the broker itself.' },
}

/** How many lines the lists keep. */
const LINES_MAX = 500

const $ = (id) => document.getElementById(id)

/** @type {COM_BROKER_Client | undefined} */
let client

/** What was asked for, by the transaction that the broker names in its answer. */
const asked = new Map()

let messageCount = 0

/** Why the connection is about to end, if it is. */
let ending = ''

// -- logging in and out -----------------------------------------------------------------------

function chosenProfile() {
  return document.querySelector('input[name=profile]:checked').value
}

function showProfile() {
  const { key, hint } = PROFILES[chosenProfile()]
  $('profile-key').value = key
  $('profile-hint').textContent = hint
}

function logIn(event) {
  event.preventDefault()
  $('login-error').hidden = true
  $('log-in').disabled = true
  showStatus('wait', 'Connecting…')
  const url = $('url').value.trim()
  write(`connecting to ${url} as ${$('login').value}`)
  const applicationKey = $('application-key').value
  client = new COM_BROKER_Client('sample', url, { applicationKey })
  client.linkEvents(onOpen, onClosed, onError, onMessage, onACK)
  client.connect($('login').value, $('profile-key').value)
}

function onOpen(_sessionId, address, profile, connectionId) {
  write(`logged in: ${address}, ${profile}`)
  showStatus('on', 'Connected')
  $('log-in').disabled = false
  $('address').textContent = address
  $('profile-name').textContent = profile[0].toUpperCase() + profile.slice(1)
  $('connection').textContent = connectionId
  $('watch-hint').textContent = {
    agent: 'Agents may subscribe to topics.',
    'super agent': 'To a topic, or to an agent, to see what that agent gets.',
    service: 'To a topic, or to an agent or super agent, to see what they get.',
    admin: 'Admins may subscribe to topics.',
  }[profile]
  document.title = `${address} · Communication Broker`
  showLoggedIn(true)
  $('to').focus()
}

function onClosed(_sessionId, code, reason) {
  write(`closed with ${code}: ${reason}`, code !== 1000)
  showClosed(ending || (code === 1000 ? '' : reason))
}

function showClosed(why) {
  client = undefined
  ending = ''
  asked.clear()
  $('subscriptions').replaceChildren()
  $('unsubscribe').hidden = true
  $('log-in').disabled = false
  document.title = 'Communication Broker'
  showStatus('off', 'Not connected')
  showLoggedIn(false)
  $('login-error').hidden = why === ''
  $('login-error').textContent = why
}

function showLoggedIn(isLoggedIn) {
  $('welcome').hidden = isLoggedIn
  for (const id of ['me', 'send', 'watch']) $(id).hidden = !isLoggedIn
  // What arrived stays on show after the end.
  $('inbox').hidden = !isLoggedIn && messageCount === 0
}

function showStatus(state, text) {
  $('status').dataset.state = state
  $('status').textContent = text
}

// -- sending and subscribing ------------------------------------------------------------------

function send(event) {
  event.preventDefault()
  const to = $('to').value.trim()
  const transaction = client?.send(to, $('body').value, $('content-type').value)
  if (transaction) asked.set(transaction, { what: `send to ${to}` })
  $('body').value = ''
  $('body').focus()
}

function subscribe(event) {
  event.preventDefault()
  const destination = $('watched').value.trim()
  const isPattern = $('regex').checked
  const transaction = client?.subscribe(destination, isPattern)
  if (transaction) asked.set(transaction, { what: `subscribe to ${destination}`, destination })
}

function unsubscribe() {
  const transaction = client?.unsubscribe()
  if (transaction) asked.set(transaction, { what: 'unsubscribe', ends: true })
}

function onACK(data, { transaction }) {
  const { what = 'request', destination, ends } = asked.get(transaction) ?? {}
  asked.delete(transaction)
  const selected = [...data.matchAll(/:\[([^\]]*)\]$/gm)].map(([, address]) => address)
  write(`${what}: OK${selected.length > 0 ? ` (${selected.join(', ')})` : ''}`)
  if (destination) showSubscription(destination)
  if (ends) $('subscriptions').replaceChildren()
  $('unsubscribe').hidden = $('subscriptions').childElementCount === 0
}

function onError(error, { transaction, code, retry }) {
  const { what } = asked.get(transaction) ?? {}
  asked.delete(transaction)
  write(`${what ? `${what}: ` : ''}${error} (${code})`, true)
  // Once logged in, only errors that end the connection say whether to come back.
  if (retry || $('me').hidden) ending = error
}

function showSubscription(destination) {
  const known = [...$('subscriptions').children].some((item) => item.textContent === destination)
  if (!known) $('subscriptions').append(element('li', '', destination))
}

// -- messages and log -------------------------------------------------------------------------

function onMessage(origin, address, contentType, payload) {
  messageCount += 1
  $('count').textContent = messageCount
  $('no-messages').hidden = true
  const from = element('div', 'from')
  const what = [element('code', '', address), element('span', '', contentType)]
  from.append(element('strong', '', origin), ...what, now())
  const text = typeof payload === 'string' ? payload : `${payload.length} octets, not text`
  const answer = element('button', 'quiet', 'Answer')
  answer.type = 'button'
  answer.addEventListener('click', () => {
    $('to').value = address
    $('body').focus()
  })
  const item = element('li', '')
  item.append(from, element('div', 'body', text), answer)
  $('messages').prepend(item)
  trim($('messages'), 'lastElementChild')
  suggest(address)
  write(`message from ${origin}`)
}

function suggest(address) {
  const isKnown = [...$('known').options].some((option) => option.value === address)
  if (isKnown) return
  const option = element('option', '')
  option.value = address
  $('known').append(option)
}

function clearMessages() {
  messageCount = 0
  $('count').textContent = '0'
  $('messages').replaceChildren()
  $('no-messages').hidden = false
}

function write(text, isBad = false) {
  const item = element('li', isBad ? 'bad' : '')
  item.append(now(), element('span', '', text))
  const log = $('log')
  const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8
  log.append(item)
  trim(log, 'firstElementChild')
  if (isAtEnd) log.scrollTop = log.scrollHeight
}

function trim(list, which) {
  while (list.childElementCount > LINES_MAX) list[which].remove()
}

function now() {
  const date = new Date()
  const time = element('time', '', date.toLocaleTimeString([], { hour12: false }))
  time.dateTime = date.toISOString()
  return time
}

function element(name, className, text = '') {
  const made = document.createElement(name)
  if (className) made.className = className
  made.textContent = text
  return made
}

// -- the beginning ----------------------------------------------------------------------------

const isServed = location.protocol.startsWith('http')
const origin = isServed ? location.origin.replace(/^http/, 'ws') : 'ws://127.0.0.1:6661'
$('url').value = `${origin}/`
$('application-key').value = CFG_STOMP_SECRET_KEY
showProfile()
for (const radio of document.querySelectorAll('input[name=profile]')) {
  radio.addEventListener('change', showProfile)
}
$('login-form').addEventListener('submit', logIn)
$('send-form').addEventListener('submit', send)
$('watch-form').addEventListener('submit', subscribe)
$('log-out').addEventListener('click', () => client?.diconnectToServer())
$('unsubscribe').addEventListener('click', unsubscribe)
$('clear-messages').addEventListener('click', clearMessages)
$('clear-log').addEventListener('click', () => $('log').replaceChildren())
$('body').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) $('send-form').requestSubmit()
})
write('ready')
