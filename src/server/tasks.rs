//! What runs beside the control plane's loop, each on a task of its own: where one panics, it is started again and the rest goes on.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    heard, learning,
    live::Live,
    parallel::{at_leisure, blocking},
    shared, verdicts,
    world::unix_s,
};

/// How often it is looked whether signatures are due; a look compares a few numbers.
const SIGNATURES_EVERY: Duration = Duration::from_secs(1);
/// From a first panic to the next start; doubled with each one that follows.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The tasks.
pub struct Tasks {
    /// Those that go on until the last query is answered.
    to_the_last: Vec<JoinHandle<()>>,
    /// Those that take part in the cluster; none before [`Tasks::begin`].
    cluster: Option<ClusterTasks>,
}

struct ClusterTasks {
    /// Exchanges what is measured and decided.
    sharing: JoinHandle<()>,
    /// Writes down what others have told.
    keeping: JoinHandle<()>,
}

impl Tasks {
    /// Publishes what changes in health: that cannot wait until the rest begins. To be called inside a runtime.
    pub fn publishing(live: &Arc<Live>) -> Tasks {
        let follower = supervised(live, "publish", |live| async move { live.follow_health().await });
        Tasks { to_the_last: vec![follower], cluster: None }
    }

    /// Begins all others.
    pub fn begin(&mut self, live: &Arc<Live>) {
        self.to_the_last.extend([
            supervised(live, "sign", keep_signed),
            supervised(live, "remember", verdicts::keep),
            supervised(live, "learn", learning::keep),
            tokio::spawn(announce_first_round(live.clone())),
        ]);
        self.cluster = Some(ClusterTasks {
            sharing: supervised(live, "cluster", shared::share),
            keeping: supervised(live, "heard", heard::keep),
        });
    }

    /// Says nothing to other servers any more, and waits until what says it has been told to end: who serves now may have this server's name
    /// in the cluster.
    pub async fn leave_cluster(&mut self) {
        if let Some(ClusterTasks { sharing, keeping }) = self.cluster.take() {
            keeping.abort();
            sharing.abort();
            let _ended = sharing.await;
        }
    }

    /// Ends those that are left.
    pub fn end(self) {
        self.to_the_last.iter().for_each(JoinHandle::abort);
    }
}

/// Runs a task and starts it again when it panics, with growing pauses; what is published stays.
fn supervised<F>(live: &Arc<Live>, name: &'static str, body: impl Fn(Arc<Live>) -> F + Send + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let live = live.clone();
    tokio::spawn(async move {
        let mut pause = PAUSE_MIN;
        let mut running = JoinSet::new(); // whoever ends this task ends the one inside it
        loop {
            running.spawn(body(live.clone()));
            if !matches!(running.join_next().await, Some(Err(error)) if error.is_panic()) {
                return;
            }
            live.count_panic(name);
            tracing::error!(task = name, "a control-plane task panicked; starting it again in {pause:?}");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    })
}

async fn announce_first_round(live: Arc<Live>) {
    live.board.first_round().await;
    let statuses = live.board.snapshot().statuses;
    let up = statuses.iter().filter(|status| status.is_up()).count();
    tracing::info!(targets = statuses.len(), up, "first round of probes done");
}

/// Signs zones anew in good time, and when the clock was set.
async fn keep_signed(live: Arc<Live>) {
    let mut tick = interval(SIGNATURES_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now_s = unix_s(SystemTime::now());
        if !live.is_signing_due(now_s) {
            continue;
        }
        let signing = live.clone();
        let signed = blocking(move || at_leisure(|| signing.sign_anew(now_s))).await;
        // Else a reload has done it, or it is tried again soon.
        if let Some(signed) = signed.flatten()
            && live.take_up_signatures(signed)
        {
            tracing::info!("signed zones anew");
        }
    }
}
