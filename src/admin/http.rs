//! x
use std::{net::TcpListener, sync::Arc};
use tokio::sync::watch;
/// x
pub async fn serve(_listener: TcpListener, _operations: Arc<dyn super::Operations>, mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|s| *s).await;
}
