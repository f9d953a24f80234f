//! The TCP engine over real sockets.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    time::Instant,
};

use super::*;
use crate::{
    telemetry::Registry,
    transport::testing::{PATIENCE, Server, ask, connect, frame, is_closed, limits, message, read_reply, worker},
};

fn start(limits: Limits) -> Server {
    Server::with_limits(&["127.0.0.1:0"], 1, limits)
}

#[test]
fn a_connection_is_used_again_and_again_over_both_families() {
    let server = Server::start(&["127.0.0.1:0", "[::1]:0"], 1);
    for &address in &server.addresses {
        let mut stream = TcpStream::connect(address).unwrap();
        for id in 0..20 {
            let query = message(id, b"again");
            assert_eq!(ask(&mut stream, &query).unwrap(), server.reply_to(&query));
        }
    }
    assert_eq!(server.balanced_totals().queries[1].iter().sum::<u64>(), 40);
    server.stop();
}

#[test]
fn pipelined_queries_are_all_answered_in_order_even_when_read_late() {
    let server = start(limits());
    let mut stream = connect(&server);
    let queries: Vec<_> = (0..500).map(|id| message(id, b"pipelined")).collect();
    stream.write_all(&queries.iter().flat_map(|q| frame(q)).collect::<Vec<_>>()).unwrap();
    server.wait_until("all are read", |server| server.registry.totals().queries_read() == 500);
    for query in &queries {
        assert_eq!(read_reply(&mut stream).unwrap(), server.reply_to(query));
    }
    server.stop();
}

#[test]
fn a_query_may_come_byte_by_byte_and_a_reply_may_have_65535_bytes() {
    let server = start(limits());
    let mut stream = connect(&server);
    for byte in frame(&message(1, b"slow")) {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_reply(&mut stream).unwrap().len(), 16);
    for _ in 0..20 {
        assert_eq!(ask(&mut stream, &message(2, b"big 65535")).unwrap().len(), 65535);
    }
    assert_eq!(ask(&mut stream, &message(3, &[0; 65523])).unwrap().len(), 65535);
    server.stop();
}

#[test]
fn a_half_closed_client_still_gets_its_answers() {
    let server = start(limits());
    let mut stream = connect(&server);
    for id in 0..100 {
        stream.write_all(&frame(&message(id, b"big 4000"))).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    for id in 0..100u16 {
        assert_eq!(read_reply(&mut stream).unwrap()[..2], id.to_be_bytes());
    }
    assert!(is_closed(&mut stream));
    server.stop();
}

#[test]
fn an_empty_message_closes_and_what_the_core_drops_does_not() {
    let server = start(limits());
    let mut stream = connect(&server);
    stream.write_all(&frame(b"short")).unwrap();
    assert_eq!(ask(&mut stream, &message(1, b"")).unwrap().len(), 12);
    stream.write_all(&[0, 0]).unwrap();
    assert!(is_closed(&mut stream));
    assert_eq!(server.balanced_totals().queries_read(), 2);
    server.stop();
}

#[test]
fn idle_connections_are_closed_and_used_ones_are_not() {
    let server = start(Limits { tcp_idle: Duration::from_millis(400), ..limits() });
    let (mut idle, mut used) = (connect(&server), connect(&server));
    let begin = Instant::now();
    let watcher = std::thread::spawn(move || (is_closed(&mut idle), begin.elapsed()));
    while !watcher.is_finished() {
        // Far more often than the limit: only a machine that stands still for so long could fail here.
        if ask(&mut used, &message(1, b"x")).is_err() {
            assert!(begin.elapsed() > Duration::from_millis(400));
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let (is_closed, after) = watcher.join().unwrap();
    assert!(is_closed && after >= Duration::from_millis(400), "{after:?}");
    server.wait_until("none is left", |server| server.registry.totals().tcp_connections == 0);
    server.stop();
}

#[test]
fn a_message_that_dribbles_in_is_cut_off() {
    let server = start(Limits { tcp_idle: Duration::from_millis(300), ..limits() });
    let mut stream = connect(&server);
    let begin = Instant::now();
    // Never idle for long, never whole.
    let cut = frame(&[7; 60000]).into_iter().any(|byte| {
        std::thread::sleep(Duration::from_millis(10));
        assert!(begin.elapsed() < PATIENCE, "still open");
        stream.write_all(&[byte]).is_err()
    });
    assert!(cut);
    server.stop();
}

#[test]
fn a_client_that_never_reads_holds_up_nobody_and_is_cut_off() {
    let server = start(Limits { tcp_idle: Duration::from_secs(2), ..limits() });
    let mut deaf = connect(&server);
    deaf.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let query = frame(&message(1, b"big 65535"));
    // As much as both sides' buffers take.
    while deaf.write_all(&query.repeat(100)).is_ok() {}
    for id in 0..50 {
        assert_eq!(ask(&mut connect(&server), &message(id, b"me")).unwrap()[..2], id.to_be_bytes());
    }
    server.wait_until("it is cut off", |server| server.registry.totals().tcp_connections == 0);
    server.stop();
}

#[test]
fn a_client_above_its_share_loses_its_connection_idle_longest() {
    let server = start(Limits { tcp_per_client: 20, ..limits() });
    let mut streams: Vec<_> = (0..20).map(|_| connect(&server)).collect();
    for (id, stream) in streams.iter_mut().enumerate().rev() {
        ask(stream, &message(id as u16, b"")).unwrap();
    }
    // The last one was used first: it is the idlest now.
    let mut one_more = connect(&server);
    ask(&mut one_more, &message(99, b"")).unwrap();
    assert!(is_closed(&mut streams[19]));
    for stream in &mut streams[..19] {
        ask(stream, &message(1, b"")).unwrap();
    }
    assert_eq!(server.registry.totals().tcp_connections, 20);
    server.stop();
}

#[test]
fn three_hundred_idle_connections_do_not_keep_new_clients_out() {
    for (connections, per_client, left) in [(1000, 20, 20), (100, 1000, 100)] {
        let server = start(Limits { tcp_connections: connections, tcp_per_client: per_client, ..limits() });
        let idle: Vec<_> = (0..300).map(|_| connect(&server)).collect();
        let begin = Instant::now();
        for id in 0..20 {
            ask(&mut connect(&server), &message(id, b"new")).unwrap();
        }
        assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
        assert!(server.registry.totals().tcp_connections <= left);
        drop(idle);
        server.stop();
    }
}

#[test]
fn an_idle_connection_costs_less_than_two_kilobytes() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = listener.local_addr().unwrap();
        let stream = tokio::net::TcpStream::connect(client).await.unwrap();
        let shared = Rc::new(RefCell::new(Shared::new(TransportKind::Tcp, worker(&Registry::new()))));
        let task = tokio::task::spawn(std::future::pending::<()>());
        let id = shared.borrow_mut().table.insert(ClientNetwork::of(client.ip()), |_| task.abort_handle());
        let (limits, stop) = (watch::Sender::new(limits()).subscribe(), watch::Sender::new(false).subscribe());
        let seat = Seat { client, id, shared, limits, stop };
        assert!(size_of_val(&Connection::new(stream, seat).serve()) < 2048);
    });
}

#[test]
fn whoever_asked_something_is_told_of_with_the_socket_when_its_connection_ends() {
    let server = start(Limits { tcp_per_client: 2, ..limits() });
    let ended = || server.ended.lock().unwrap().clone();
    drop(connect(&server)); // asks nothing
    let mut closed = connect(&server);
    ask(&mut closed, &message(1, b"")).unwrap();
    let closed_address = closed.local_addr().unwrap();
    drop(closed);
    server.wait_until("the first has ended", |_| ended() == [closed_address]);
    // One that is closed to make room, and one that a stop closes.
    let [mut evicted, mut kept] = [connect(&server), connect(&server)];
    for stream in [&mut evicted, &mut kept] {
        ask(stream, &message(2, b"")).unwrap();
    }
    let mut last = connect(&server);
    ask(&mut last, &message(3, b"")).unwrap();
    assert!(is_closed(&mut evicted));
    let evicted_address = evicted.local_addr().unwrap();
    server.wait_until("the second has ended", |_| ended() == [closed_address, evicted_address]);
    let all = server.ended.clone();
    server.stop();
    assert_eq!(all.lock().unwrap().len(), 4);
}

#[test]
fn limits_can_be_changed_while_serving() {
    let server = start(limits());
    let mut streams: Vec<_> = (0..10).map(|_| connect(&server)).collect();
    for stream in &mut streams {
        ask(stream, &message(1, b"")).unwrap();
    }
    server.serving.set_limits(&Limits { tcp_per_client: 3, ..limits() });
    ask(&mut connect(&server), &message(2, b"")).unwrap();
    for stream in &mut streams[..8] {
        assert!(is_closed(stream));
    }
    ask(&mut streams[9], &message(3, b"")).unwrap();
    server.stop();
}

#[test]
fn a_stop_answers_what_has_arrived_and_does_not_wait_for_the_idle() {
    let server = start(limits());
    let mut streams: Vec<_> = (0..50).map(|_| connect(&server)).collect();
    let _idle = connect(&server);
    for stream in &mut streams {
        for id in 0..20 {
            stream.write_all(&frame(&message(id, b"last"))).unwrap();
        }
    }
    let begin = Instant::now();
    server.stop();
    assert!(begin.elapsed() < STOP_WITHIN, "{:?}", begin.elapsed());
    for stream in &mut streams {
        for id in 0..20u16 {
            assert_eq!(read_reply(stream).unwrap()[..2], id.to_be_bytes());
        }
        assert!(is_closed(stream));
    }
}

#[test]
fn a_stop_waits_for_the_rest_of_a_message_but_not_for_ever() {
    let server = start(limits());
    let (mut slow, mut never) = (connect(&server), connect(&server));
    let query = frame(&message(5, b"second half follows"));
    for stream in [&mut slow, &mut never] {
        ask(stream, &message(1, b"")).unwrap();
        stream.write_all(&query[..9]).unwrap();
    }
    let begin = Instant::now();
    let stopping = std::thread::spawn(move || server.stop());
    slow.write_all(&query[9..]).unwrap();
    assert_eq!(read_reply(&mut slow).unwrap()[..2], [0, 5]);
    stopping.join().unwrap();
    assert!(begin.elapsed() < PATIENCE);
    assert!(is_closed(&mut never));
}

#[test]
fn a_panic_in_a_connection_is_seen_from_outside() {
    let server = start(limits());
    connect(&server).write_all(&frame(&message(0, b"panic"))).unwrap();
    server.wait_until("the thread ends", |server| !server.serving.is_whole());
    assert_eq!(server.serving.stop().unwrap_err().thread, "tcp");
}
