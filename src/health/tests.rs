//! The whole room together: real sockets, real time, short intervals.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, runtime::Handle, task::JoinHandle, time::timeout};

use super::{
    testing::{http_check, net_probe, tcp_check},
    *,
};

/// What fails a test that hangs.
const DEADLINE: Duration = Duration::from_secs(30);

fn quick(check: Check) -> Arc<Check> {
    let (interval, fast_interval) = (Duration::from_millis(200), Duration::from_millis(50));
    Arc::new(Check { interval, fast_interval, timeout: Duration::from_secs(10), ..check })
}

/// An endpoint that answers HTTP until its task is ended.
async fn endpoint(at: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(at).await.unwrap();
    let at = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    (at, serving)
}

async fn until(board: &Board, what: &str, condition: impl Fn(&Snapshot) -> bool) {
    let mut changes = board.changes();
    let waiting = async {
        while !condition(&board.snapshot()) {
            changes.changed().await.expect("the board lives");
        }
    };
    assert!(timeout(DEADLINE, waiting).await.is_ok(), "{what} never came: {:#?}", board.snapshot());
}

#[tokio::test]
async fn a_killed_endpoint_goes_down_and_comes_back_when_it_serves_again() {
    let (at, serving) = endpoint(([127, 0, 0, 1], 0).into()).await;
    let address = Endpoint::Address(at.ip());
    let targets = Targets::new(vec![
        (address.clone(), quick(http_check(at))),
        (address, quick(tcp_check(at.port()))),
        (Endpoint::Name("localhost".into()), quick(http_check(at))),
    ]);
    let board = Arc::new(Board::default());
    let prober = Prober::start(&targets, board.clone(), Arc::new(net_probe()), usize::MAX, &Handle::current());
    timeout(DEADLINE, board.first_round()).await.unwrap();
    let all = |state| move |now: &Snapshot| now.statuses.iter().all(|status| status.decided && status.state == state);
    assert!(all(State::Up)(&board.snapshot()), "{:#?}", board.snapshot());
    assert!(board.snapshot().statuses.iter().all(|status| status.baseline.is_some()));

    serving.abort();
    let _ = serving.await;
    until(&board, "down", all(State::Down)).await;
    let failed = board.snapshot().statuses.iter().map(|status| status.probes_failed).min();
    assert!(failed >= Some(3), "not before `fall` failures: {failed:?}");

    let (_, serving) = endpoint(at).await;
    until(&board, "up again", all(State::Up)).await;
    serving.abort();
    timeout(DEADLINE, prober.stop()).await.unwrap();
}
