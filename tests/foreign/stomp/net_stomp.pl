# Perl's Net::Stomp. Usage: net_stomp.pl 1.0|1.1|1.2 tcp|tls

use strict;
use warnings;
use Net::Stomp;
use Time::HiRes qw(time);

my ($version, $transport) = @ARGV;
my $login = $ENV{BROKER_LOGIN};
$| = 1;

sub open_connection {
    my $tls = $transport eq 'tls';
    return Net::Stomp->new({
        hostname => 'localhost', port => $ENV{BROKER_PORT}, ssl => $tls, timeout => 20,
        ssl_options => { SSL_ca_file => $ENV{BROKER_CA} },
        logger => Log::Any->get_logger, initial_reconnect_attempts => 1, reconnect_attempts => 1,
    });
}

sub log_in {
    my ($check, $keys) = @_;
    my $stomp = open_connection();
    my $answer = $stomp->connect({
        login => "$login-$check", passcode => $keys // $ENV{BROKER_KEYS},
        'accept-version' => $version });
    return ($stomp, $answer);
}

sub place { my ($kind, $check) = @_; return "/$kind/$login-$check" }

sub expect { my ($truth, $otherwise) = @_; die "$otherwise\n" unless $truth }

sub frame {
    my ($stomp, $command) = @_;
    my $frame = $stomp->receive_frame or die "no $command\n";
    expect($frame->command eq $command, "$command was expected: " . $frame->as_string);
    return $frame;
}

sub expect_body {
    my ($stomp, $body) = @_;
    my $frame = frame($stomp, 'MESSAGE');
    expect($frame->body eq $body, 'another body: ' . substr($frame->body, 0, 200));
    return $frame;
}

# The library knows STOMP 1.0; what later versions want goes along as headers.
sub settle {
    my ($stomp, $verb, $frame) = @_;
    my %more = $version eq '1.2' ? (id => $frame->headers->{ack}) : (subscription => '1');
    $stomp->$verb({ frame => $frame, receipt => $verb, %more });
}

sub expect_receipt {
    my ($stomp, $id) = @_;
    my $frame = frame($stomp, 'RECEIPT');
    expect($frame->headers->{'receipt-id'} eq $id, 'another receipt: ' . $frame->as_string);
}

my %check = (
    connect => sub {
        my ($stomp, $answer) = log_in('connect');
        my $headers = $answer->headers;
        expect($answer->command eq 'CONNECTED', 'not connected: ' . $answer->as_string);
        expect($headers->{version} eq $version, "another version: $headers->{version}");
        expect($headers->{destination} eq "/agent/$login-connect", 'another address');
        $stomp->disconnect;
    },
    subscribe_and_send => sub {
        my ($stomp) = log_in('subscribe_and_send');
        for my $kind (qw(topic agent)) {
            my $destination = place($kind, 'subscribe_and_send');
            $stomp->subscribe({ destination => $destination, id => $kind });
            for my $body ('¿qué tal, señora? ☎', 'x' x 300_000, join('', map { chr } 0 .. 255) x 3) {
                # As bytes it has a content-length, without which a body ends at its first NUL.
                $stomp->send({
                    destination => $destination, body => $body, color => 'rojo',
                    bytes_message => 1 });
                my $headers = expect_body($stomp, $body)->headers;
                expect($headers->{destination} eq $destination, 'another destination');
                expect($headers->{color} eq 'rojo', 'another color');
            }
        }
        $stomp->disconnect;
    },
    receipt => sub {
        my ($stomp) = log_in('receipt');
        my $answer;
        my $done = $stomp->send_with_receipt(
            { destination => place('topic', 'receipt'), body => 'hola' }, $answer);
        expect($done, 'no RECEIPT');
        expect($answer->headers->{delivered} eq '0', 'delivered to nobody');
        $stomp->disconnect;
    },
    ack => sub {
        my ($stomp) = log_in('ack');
        my $queue = place('queue', 'ack');
        my %subscription = (
            destination => $queue, id => '1',
            ack => $version eq '1.0' ? 'client' : 'client-individual');
        $stomp->subscribe({ %subscription, 'prefetch-count' => 1 });
        $stomp->send({ destination => $queue, body => $_ }) for qw(first second);
        settle($stomp, 'ack', expect_body($stomp, 'first'));
        expect_body($stomp, 'second');
        expect_receipt($stomp, 'ack');
        $stomp->unsubscribe({ destination => $queue, id => '1' });
        $stomp->subscribe(\%subscription);
        my $frame = expect_body($stomp, 'second');
        expect(($frame->headers->{redelivered} // '') eq 'true', 'not marked');
        settle($stomp, 'ack', $frame);
        expect_receipt($stomp, 'ack');
        $stomp->disconnect;
    },
    nack => sub {
        my ($stomp) = log_in('nack');
        my $queue = place('queue', 'nack');
        $stomp->subscribe({ destination => $queue, id => '1', ack => 'client-individual' });
        $stomp->send({ destination => $queue, body => 'hola' });
        settle($stomp, 'nack', expect_body($stomp, 'hola'));
        my $frame = expect_body($stomp, 'hola');
        expect(($frame->headers->{redelivered} // '') eq 'true', 'not marked');
        expect_receipt($stomp, 'nack');
        settle($stomp, 'ack', $frame);
        expect_receipt($stomp, 'ack');
        $stomp->disconnect;
    },
    transaction => sub {
        my ($stomp) = log_in('transaction');
        my $topic = place('topic', 'transaction');
        my $tell = sub {
            my ($command, $id) = @_;
            $stomp->send_frame(Net::Stomp::Frame->new(
                { command => $command, headers => { transaction => $id } }));
        };
        $stomp->subscribe({ destination => $topic, id => '1' });
        $tell->('BEGIN', 't1');
        $stomp->send({ destination => $topic, body => 'inside', transaction => 't1' });
        $stomp->send({ destination => $topic, body => 'outside' });
        expect_body($stomp, 'outside');
        $tell->('COMMIT', 't1');
        expect_body($stomp, 'inside');
        $tell->('BEGIN', 't2');
        $stomp->send({ destination => $topic, body => 'aborted', transaction => 't2' });
        $tell->('ABORT', 't2');
        $stomp->send({ destination => $topic, body => 'last' });
        expect_body($stomp, 'last');
        $stomp->disconnect;
    },
    disconnect => sub {
        my ($stomp) = log_in('disconnect');
        $stomp->send_frame(Net::Stomp::Frame->new(
            { command => 'DISCONNECT', headers => { receipt => '77' } }));
        expect_receipt($stomp, '77');
    },
    wrong_key => sub {
        my (undef, $answer) = log_in('wrong_key', 'my_app_secret_key.wrong');
        expect($answer->command eq 'ERROR', 'logged in with a wrong key');
        expect($answer->headers->{'error-code'} eq 'INVALID_PROFILE_KEY', 'another error');
        expect($answer->headers->{retry} eq 'never', 'another error');
    },
);

print "version $Net::Stomp::VERSION\n";
for my $name (qw(connect subscribe_and_send receipt ack nack transaction disconnect wrong_key)) {
    next if $name eq 'nack' && $version eq '1.0';
    my $started = time;
    if (eval { $check{$name}->(); 1 }) {
        printf "ok %s (%.2f s)\n", $name, time - $started;
    } else {
        my $fault = $@ =~ s/\n/|/gr;
        print "FAILED $name: $fault\n";
    }
}
