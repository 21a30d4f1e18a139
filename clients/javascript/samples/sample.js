/** The sample page: logs in, sends, subscribes, and shows what arrives and what happened. */

const PROFILES = {
  agent: { key: 'my_agent_secret_key', hint: 'Gets messages and sends them.' },
  super_agent: { key: 'my_super_agent_secret_key', hint: 'May also watch agents.' },
  service: { key: 'my_service_secret_key', hint: 'May also watch agents and super agents.' },
  admin: { key: 'my_admin_secret_key', hint: 'Gets messages and sends them; nobody may watch it.' },
}

/** What a profile may subscribe to, unless the broker is configured otherwise. */
const MAY_SUBSCRIBE = {
  agent: 'To a topic. /topic/> takes all of them.',
  'super agent': 'To a topic or queue, or to an agent, to get a copy of what that agent gets.',
  service: 'To a topic or queue, or to an agent or super agent, to get a copy of what it gets.',
  admin: 'To a topic or queue. /topic/> takes all topics.',
}

/** How many lines the lists keep. */
const LINES_MAX = 500

const $ = (id) => document.getElementById(id)

/** @type {ComBroker.Client | undefined} */
let client

/** The subscriptions, by the text that each was asked for with. */
const subscriptions = new Map()

/** The refusal over which the broker ends the connection, and after which the page connects again. */
let refusal

let messageCount = 0

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
  const [url, login] = [$('url').value.trim(), $('login').value]
  const [applicationKey, profileKey] = [$('application-key').value, $('profile-key').value]
  write(`connecting to ${url} as ${login}`)
  const reconnect = { maxDelay: 5000 }
  const made = new ComBroker.Client({ url, login, applicationKey, profileKey, reconnect })
  client = made
  made.addEventListener('open', () => showOpen(made.session))
  made.addEventListener('reconnecting', ({ detail }) => handleLoss(made, detail))
  made.addEventListener('close', ({ detail }) => handleClose(made, detail.error))
  made.addEventListener('message', ({ detail }) => showMessage(detail))
  // The events tell of failures, too.
  made.connect().catch(() => {})
}

function showOpen({ address, profile }) {
  write(`logged in: ${address}, ${profile}`)
  showStatus('on', 'Connected')
  $('notice').hidden = true
  if (!$('me').hidden) return
  $('log-in').disabled = false
  $('address').textContent = address
  $('profile-name').textContent = profile[0].toUpperCase() + profile.slice(1)
  $('watch-hint').textContent = MAY_SUBSCRIBE[profile]
  $('regex-label').hidden = profile === 'agent' || profile === 'admin'
  document.title = `${address} · Communication Broker`
  showLoggedIn(true)
  $('to').focus()
}

/** The client connects again by itself. Before the first login the form says why it failed instead. */
function handleLoss(lost, { error, delay }) {
  if (!lost.session) {
    write(error.message, 'bad')
    showClosed(sentence(error))
    lost.close()
    return
  }
  write(`${error.message}; again in ${delay} ms`, 'bad')
  showStatus('wait', 'Reconnecting…')
  // Later reasons say only that the broker is still away.
  if (!$('notice').hidden) return
  $('notice').textContent = `${sentence(error)} The page connects again by itself.`
  $('notice').hidden = false
}

function handleClose(closed, error) {
  if (closed !== client) return
  if (error && error === refusal) return comeBack(closed)
  write(error ? `closed: ${error.message}` : 'closed', error ? 'bad' : '')
  showClosed(error ? sentence(error) : '')
}

/** STOMP ends the connection over every refused request; a mistyped name should not log people out. */
async function comeBack(closed) {
  const wanted = [...subscriptions.keys()]
  subscriptions.clear()
  try {
    await closed.connect()
    for (const name of wanted) await makeSubscription(name)
  } catch {
    // An event tells why.
  }
}

function showClosed(why) {
  client = undefined
  refusal = undefined
  subscriptions.clear()
  showSubscriptions()
  for (const id of ['notice', 'send-outcome', 'watch-outcome']) $(id).hidden = true
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

// -- sending ----------------------------------------------------------------------------------

async function send(event) {
  event.preventDefault()
  const sender = client
  const [to, text] = [$('to').value.trim(), $('body').value]
  const isAway = sender.state !== 'open'
  showOutcome('send', 'wait', isAway ? 'This waits for the connection.' : 'Sending…')
  try {
    const { delivered } = await sender.send(to, text, { contentType: $('content-type').value })
    showDelivered(to, delivered)
    // The text stays if it was changed meanwhile.
    const isTaken = delivered > 0 || to.startsWith('/queue/')
    if (isTaken && $('body').value === text) $('body').value = ''
    $('body').focus()
  } catch (error) {
    noteRefusal(sender, error)
    showOutcome('send', 'bad', `Not delivered: ${said(error)}`)
    write(`send to ${to}: ${said(error)}`, 'bad')
  }
}

function showDelivered(to, delivered) {
  if (delivered > 0) {
    const who = delivered === 1 ? 'one client' : `${delivered} clients`
    const isShared = /^\/(topic|queue)\//.test(to)
    const text = `Delivered to ${who}${delivered > 1 && !isShared ? ', copies included' : ''}.`
    showOutcome('send', 'good', text)
    write(`send to ${to}: ${text}`)
  } else if (to.startsWith('/queue/')) {
    showOutcome('send', 'good', `Kept in the queue: nobody takes from ${to} at the moment.`)
    write(`send to ${to}: kept in the queue`)
  } else {
    showOutcome('send', 'wait', `Nobody got it: nobody listens to ${to} at the moment.`)
    write(`send to ${to}: nobody got it`, 'wait')
  }
}

// -- subscribing ------------------------------------------------------------------------------

async function subscribe(event) {
  event.preventDefault()
  const name = ($('regex').checked ? 'regex ' : '') + $('watched').value.trim()
  if (subscriptions.has(name)) {
    return showOutcome('watch', 'wait', 'This page is subscribed to that already.')
  }
  const asker = client
  try {
    await makeSubscription(name)
    showOutcome('watch', 'good', `Subscribed to ${name}.`)
    $('watched').value = ''
    write(`subscribe to ${name}: OK`)
  } catch (error) {
    noteRefusal(asker, error)
    showOutcome('watch', 'bad', `Not subscribed: ${said(error)}`)
    write(`subscribe to ${name}: ${said(error)}`, 'bad')
  }
}

async function makeSubscription(name) {
  const asker = client
  const isPattern = name.startsWith('regex ')
  const isShared = /^\/(topic|queue)\//.test(name)
  const made = isPattern
    ? await asker.watch(new RegExp(name.slice('regex '.length)), showMessage)
    : isShared
      ? await asker.subscribe(name, {}, showMessage)
      : await asker.watch(name, showMessage)
  if (asker !== client) return
  subscriptions.set(name, made)
  showSubscriptions()
}

/** Whether the broker ends the connection over a request, so that the page has to come back. */
function noteRefusal(asker, error) {
  const isRefusal = error instanceof ComBroker.BrokerError && error.retry === 'never'
  if (isRefusal && asker === client) refusal = error
}

async function unsubscribe(names) {
  const ended = names.map((name) => [name, subscriptions.get(name)])
  for (const [name] of ended) subscriptions.delete(name)
  showSubscriptions()
  $('watch-outcome').hidden = true
  for (const [name, subscription] of ended) {
    try {
      await subscription.unsubscribe()
      write(`unsubscribe from ${name}: OK`)
    } catch (error) {
      write(`unsubscribe from ${name}: ${said(error)}`, 'bad')
    }
  }
}

function showSubscriptions() {
  const items = [...subscriptions.keys()].map((name) => {
    const item = element('li', '', name)
    const end = element('button', '', '×')
    end.type = 'button'
    end.title = `Unsubscribe from ${name}`
    end.setAttribute('aria-label', end.title)
    end.addEventListener('click', () => unsubscribe([name]))
    item.append(end)
    return item
  })
  $('subscriptions').replaceChildren(...items)
  $('unsubscribe').hidden = items.length < 2
}

// -- messages and log -------------------------------------------------------------------------

function showMessage(message) {
  messageCount += 1
  $('count').textContent = messageCount
  $('no-messages').hidden = true
  const { origin, originDestination: address, contentType } = message
  const from = element('div', 'from')
  from.append(element('strong', '', origin), element('code', '', address))
  const via = showVia(message)
  if (via) from.append(via)
  from.append(element('span', '', contentType ?? ''), now())
  const answer = element('button', 'quiet', 'Answer')
  answer.type = 'button'
  answer.addEventListener('click', () => {
    $('to').value = address
    $('body').focus()
  })
  const item = element('li', '')
  item.append(from, element('div', 'body', textOf(message)), answer)
  $('messages').prepend(item)
  trim($('messages'), 'lastElementChild')
  suggest(address)
  write(`message from ${origin}${via ? `, ${via.textContent}` : ''}`)
}

/** For whom a message was, unless it was sent to this client. */
function showVia({ destination }) {
  if (destination === client?.session?.address) return undefined
  const isShared = /^\/(topic|queue)\//.test(destination)
  const text = isShared ? `on ${destination}` : `copy, was for ${destination}`
  return element('span', isShared ? 'via' : 'via copy', text)
}

function textOf({ bytes }) {
  if (bytes.length === 0) return '(empty)'
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return `(${bytes.length} bytes that are not text)`
  }
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

function showOutcome(form, kind, text) {
  const outcome = $(`${form}-outcome`)
  outcome.dataset.kind = kind
  outcome.textContent = text
  outcome.hidden = false
}

/** An error as people read it: a sentence, and the word that documents explain. */
function sentence(error) {
  const text = said(error)
  const isAddress = /^\w+:\/\//.test(text)
  return `${isAddress ? text[0] : text[0].toUpperCase()}${text.slice(1)}.`
}

function said({ message, code }) {
  return typeof code === 'string' ? `${message} (${code})` : message
}

function write(text, className = '') {
  const item = element('li', className)
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
$('log-out').addEventListener('click', () => client?.close())
$('unsubscribe').addEventListener('click', () => unsubscribe([...subscriptions.keys()]))
$('clear-messages').addEventListener('click', clearMessages)
$('clear-log').addEventListener('click', () => $('log').replaceChildren())
$('body').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) $('send-form').requestSubmit()
})
write('ready')
