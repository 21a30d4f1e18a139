<?php
// PHP's extension `stomp`. Usage: php_stomp.php 1.0|1.1|1.2 tcp|tls

[, $version, $transport] = $argv;
$url = ($transport === 'tls' ? 'ssl' : 'tcp') . '://localhost:' . getenv('BROKER_PORT');

function log_in(string $check, ?string $keys = null): Stomp
{
    global $url, $version;
    $headers = $version === '1.0' ? [] : ['accept-version' => $version];
    $stomp = new Stomp(
        $url, getenv('BROKER_LOGIN') . "-$check", $keys ?? getenv('BROKER_KEYS'), $headers);
    $stomp->setReadTimeout(20);
    return $stomp;
}

function place(string $kind, string $check): string
{
    return "/$kind/" . getenv('BROKER_LOGIN') . "-$check";
}

function expect(bool $truth, string $otherwise): void
{
    if (!$truth) {
        throw new Exception($otherwise);
    }
}

function expect_body(Stomp $stomp, string $body): StompFrame
{
    $frame = $stomp->readFrame();
    expect($frame !== false, 'no MESSAGE: ' . $stomp->error());
    expect($frame->command === 'MESSAGE', "a MESSAGE was expected: $frame->command");
    expect($frame->body === $body,
        substr($body, 0, 40) . ' was expected: ' . substr($frame->body, 0, 200));
    return $frame;
}

// The extension knows STOMP 1.0; what later versions want goes along as headers.
function settle(Stomp $stomp, string $verb, StompFrame $frame): void
{
    global $version;
    $headers = match ($version) {
        '1.0' => [],
        '1.1' => ['subscription' => '1'],
        '1.2' => ['id' => $frame->headers['ack'] ?? ''],
    };
    expect($stomp->$verb($frame, $headers + ['receipt' => $verb]), "no RECEIPT for $verb");
}

$checks = [
    'connect' => function () {
        $stomp = log_in('connect');
        expect($stomp->getSessionId() !== '', 'no session');
    },
    'subscribe_and_send' => function () {
        $stomp = log_in('subscribe_and_send');
        foreach (['topic', 'agent'] as $kind) {
            $destination = place($kind, 'subscribe_and_send');
            $stomp->subscribe($destination, ['id' => $kind, 'receipt' => "s-$kind"]);
            $stomp->send($destination, '¿qué tal, señora? ☎', ['color' => 'rojo']);
            $headers = expect_body($stomp, '¿qué tal, señora? ☎')->headers;
            expect($headers['destination'] === $destination, 'another destination');
            expect($headers['color'] === 'rojo', 'another color');
            $stomp->send($destination, str_repeat('x', 300_000));
            expect_body($stomp, str_repeat('x', 300_000));
            $bytes = str_repeat(implode('', array_map('chr', range(0, 255))), 3);
            $stomp->send($destination, $bytes, ['content-length' => strlen($bytes)]);
            expect_body($stomp, $bytes);
        }
    },
    'receipt' => function () {
        $stomp = log_in('receipt');
        expect($stomp->send(place('topic', 'receipt'), 'hola', ['receipt' => '1']), 'no RECEIPT');
    },
    'ack' => function () {
        global $version;
        $stomp = log_in('ack');
        $queue = place('queue', 'ack');
        $mode = $version === '1.0' ? 'client' : 'client-individual';
        $stomp->subscribe($queue, ['id' => '1', 'ack' => $mode, 'prefetch-count' => '1']);
        $stomp->send($queue, 'first');
        $stomp->send($queue, 'second');
        settle($stomp, 'ack', expect_body($stomp, 'first'));
        expect_body($stomp, 'second');
        expect($stomp->unsubscribe($queue, ['id' => '1', 'receipt' => 'u']), 'no RECEIPT');
        $stomp->subscribe($queue, ['id' => '1', 'ack' => $mode]);
        $frame = expect_body($stomp, 'second');
        expect(($frame->headers['redelivered'] ?? '') === 'true', 'not marked');
        settle($stomp, 'ack', $frame);
    },
    'nack' => function () {
        $stomp = log_in('nack');
        $queue = place('queue', 'nack');
        $stomp->subscribe($queue, ['id' => '1', 'ack' => 'client-individual']);
        $stomp->send($queue, 'hola');
        settle($stomp, 'nack', expect_body($stomp, 'hola'));
        $frame = expect_body($stomp, 'hola');
        expect(($frame->headers['redelivered'] ?? '') === 'true', 'not marked');
        settle($stomp, 'ack', $frame);
    },
    'transaction' => function () {
        $stomp = log_in('transaction');
        $topic = place('topic', 'transaction');
        $stomp->subscribe($topic, ['id' => '1']);
        $stomp->begin('t1');
        $stomp->send($topic, 'inside', ['transaction' => 't1']);
        $stomp->send($topic, 'outside');
        expect_body($stomp, 'outside');
        $stomp->commit('t1');
        expect_body($stomp, 'inside');
        $stomp->begin('t2');
        $stomp->send($topic, 'aborted', ['transaction' => 't2']);
        $stomp->abort('t2');
        $stomp->send($topic, 'last');
        expect_body($stomp, 'last');
    },
    'disconnect' => function () {
        $stomp = log_in('disconnect');
        unset($stomp);
    },
    'wrong_key' => function () {
        try {
            log_in('wrong_key', 'my_app_secret_key.wrong');
        } catch (StompException $error) {
            $message = $error->getMessage();
            expect($message === 'the profile key (passcode) is wrong', "another error: $message");
            return;
        }
        throw new Exception('logged in with a wrong key');
    },
];
if ($version === '1.0') {
    unset($checks['nack']);
}
echo 'version ', phpversion('stomp'), "\n";
foreach ($checks as $name => $check) {
    $started = microtime(true);
    try {
        $check();
        printf("ok %s (%.2f s)\n", $name, microtime(true) - $started);
    } catch (Throwable $fault) {
        echo "FAILED $name: ", get_class($fault), ': ', strtr($fault->getMessage(), "\n", '|'), "\n";
    }
}
