# The Ruby gem `stomp`. Usage: ruby_stomp.rb 1.0|1.1|1.2 tcp|tls

require "stomp"
require "timeout"

VERSION, TRANSPORT = ARGV
LOGIN, KEYS = ENV.values_at("BROKER_LOGIN", "BROKER_KEYS")
PATIENCE = 20

def parameters(check, more = {})
  ssl = TRANSPORT == "tls" && Stomp::SSLParams.new(ts_files: ENV["BROKER_CA"], fsck: true)
  headers = { "accept-version" => VERSION, "host" => "localhost" }
  {
    hosts: [{
      login: "#{LOGIN}-#{check}", passcode: more.delete(:keys) || KEYS,
      host: "localhost", port: ENV["BROKER_PORT"].to_i, ssl: ssl,
    }],
    connect_headers: headers.merge(more), reliable: false, sslctx_newparm: nil,
    # The host name is checked too, not just who signed.
    ssl_post_conn_check: true,
  }
end

def log_in(check, more = {})
  Stomp::Client.new(parameters(check, more))
end

def place(kind, check)
  "/#{kind}/#{LOGIN}-#{check}"
end

def expect(truth, otherwise)
  raise otherwise unless truth
end

# Subscribes; gives a queue of what arrives.
def messages(client, destination, headers = {})
  Queue.new.tap { |queue| client.subscribe(destination, headers) { |one| queue << one } }
end

def next_of(queue, what = "MESSAGE")
  Timeout.timeout(PATIENCE, RuntimeError, "no #{what}") { queue.pop }
end

def expect_body(queue, body)
  next_of(queue).tap do |message|
    expect(message.body.b == body.b, "#{body[0, 40].b} was expected: #{message.body[0, 200].b}")
  end
end

# Does something that takes a block for its receipt, and waits for that.
def with_receipt
  receipts = Queue.new
  yield ->(receipt) { receipts << receipt }
  next_of(receipts, "RECEIPT")
end

def connect
  client = log_in("connect")
  headers = client.connection_frame.headers
  expect(client.protocol == VERSION, "another version: #{client.protocol}")
  expect(headers["destination"] == "/agent/#{LOGIN}-connect", "another address: #{headers}")
  expect(headers["session"], "no session")
  client.close
end

def subscribe_and_send
  client = log_in("subscribe_and_send")
  color = VERSION == "1.0" ? "rojo" : "x\\y:z\nw"
  %w[topic agent].each do |kind|
    destination = place(kind, "subscribe_and_send")
    queue = messages(client, destination)
    client.publish(destination, "¿qué tal, señora? ☎", "color" => color)
    headers = expect_body(queue, "¿qué tal, señora? ☎").headers
    expect(headers["destination"] == destination, "another destination: #{headers}")
    expect(headers["color"] == color, "another color: #{headers}")
    client.publish(destination, "x" * 300_000)
    expect_body(queue, "x" * 300_000)
    bytes = (0..255).to_a.pack("C*") * 3
    client.publish(destination, bytes)
    expect_body(queue, bytes)
  end
  client.close
end

def receipt
  client = log_in("receipt")
  own = place("agent", "receipt")
  queue = messages(client, own)
  answer = with_receipt { |take| client.publish(own, "hola", &take) }
  expect(answer.headers["delivered"] == "1", "not delivered: #{answer.headers}")
  expect_body(queue, "hola")
  client.close
end

def ack
  client = log_in("ack")
  name = place("queue", "ack")
  mode = VERSION == "1.0" ? "client" : "client-individual"
  queue = messages(client, name, "ack" => mode, "prefetch-count" => "1")
  client.publish(name, "first")
  client.publish(name, "second")
  first = expect_body(queue, "first")
  with_receipt { |take| client.ack(first, &take) }
  expect_body(queue, "second")
  client.unsubscribe(name)
  queue = messages(client, name, "ack" => mode)
  again = expect_body(queue, "second")
  expect(again.headers["redelivered"] == "true", "not marked: #{again.headers}")
  with_receipt { |take| client.ack(again, &take) }
  client.close
end

def nack
  client = log_in("nack")
  name = place("queue", "nack")
  queue = messages(client, name, "ack" => "client-individual")
  client.publish(name, "hola")
  client.nack(expect_body(queue, "hola"))
  again = expect_body(queue, "hola")
  expect(again.headers["redelivered"] == "true", "not marked: #{again.headers}")
  with_receipt { |take| client.ack(again, &take) }
  client.close
end

def transaction
  client = log_in("transaction")
  topic = place("topic", "transaction")
  queue = messages(client, topic)
  client.begin("t1")
  client.publish(topic, "inside", transaction: "t1")
  client.publish(topic, "outside")
  expect_body(queue, "outside")
  client.commit("t1")
  expect_body(queue, "inside")
  client.begin("t2")
  client.publish(topic, "aborted", transaction: "t2")
  client.abort("t2")
  client.publish(topic, "last")
  expect_body(queue, "last")
  client.close
end

def heart_beat
  client = log_in("heart_beat", "heart-beat" => "1000,1000")
  # The library counts only beats that came while nobody read; when it last heard one it notes.
  heard = -> { client.instance_variable_get(:@connection).instance_variable_get(:@lr) }
  seen = Array.new(45) { sleep(0.1) && heard.call }.uniq.size - 1
  expect(client.open? && client.running, "the idle connection was lost")
  expect(seen >= 3, "#{seen} beats seen")
  own = place("agent", "heart_beat")
  queue = messages(client, own)
  client.publish(own, "hola")
  expect_body(queue, "hola")
  client.close
end

def disconnect
  client = log_in("disconnect")
  client.close(receipt: "77")
  receipt = client.disconnect_receipt
  expect(receipt && receipt.headers["receipt-id"] == "77", "no receipt: #{receipt}")
  expect(client.closed?, "not closed")
end

def wrong_key
  connection = Stomp::Connection.new(parameters("wrong_key", keys: "my_app_secret_key.wrong"))
  frame = connection.connection_frame
  expect(frame.command == "ERROR", "logged in with a wrong key: #{frame}")
  expect(frame.headers["error-code"] == "INVALID_PROFILE_KEY", "another error: #{frame}")
  expect(frame.headers["retry"] == "never", "another error: #{frame}")
end

puts "version #{Stomp::Version::STRING}"
checks = %i[connect subscribe_and_send receipt ack transaction disconnect wrong_key]
checks += %i[nack heart_beat] unless VERSION == "1.0"
checks.each do |name|
  started = Time.now
  begin
    send(name)
    puts format("ok %s (%.2f s)", name, Time.now - started)
  rescue StandardError => fault
    puts "FAILED #{name}: #{fault.class}: #{fault.message.tr("\n", "|")}"
  end
  $stdout.flush
end
