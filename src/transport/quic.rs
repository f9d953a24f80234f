//! DNS over QUIC (RFC 9250) through hickory-server, which takes sockets, reads requests and writes responses out of records. The
//! adapter between it and the answering core stands here: the request's bytes go to the core, and the core's reply is taken
//! apart into the records that hickory puts together again. Must never decide anything that the core has decided.

use std::{
    io,
    net::UdpSocket,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use hickory_proto::{
    ProtoError,
    op::{Header, HeaderCounts, Message, Metadata, ResponseCode},
    rr::{
        Record,
        rdata::opt::{EdnsCode, EdnsOption},
    },
    serialize::binary::{BinDecoder, BinEncoder, DecodeError},
};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server},
    zone_handler::{MessageResponse, MessageResponseBuilder, Queries},
};
use rustls::ServerConfig;
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    time::{interval, sleep, timeout},
};

use super::{Reply, Respond, TransportKind, Word, Worker, stopwatch::Stopwatch, tcp::STOP_WITHIN};
use crate::{
    telemetry::WorkerCounters,
    wire::{HEADER_LEN, codes::option, writer::PADDING_BLOCK},
};

/// The QUIC thread's sockets and tools, ready to [`run`](Engine::run).
pub struct Engine<R: Respond + Send + 'static> {
    runtime: Runtime,
    server: Server<Adapter<R>>,
    stop: watch::Receiver<Word>,
    counters: Arc<WorkerCounters>,
}

/// Answers hickory's requests out of the core.
pub struct Adapter<R> {
    /// hickory asks for something that several threads could share. There is one, so nobody ever waits.
    inner: Mutex<Box<Inner<R>>>,
}

struct Inner<R> {
    worker: Worker<R>,
    stopwatch: Stopwatch,
    output: Box<[u8]>,
}

/// So often the thread shows that it is alive though nobody asks.
const SHOW_LIFE_EVERY: Duration = Duration::from_secs(1);

/// After the word to stop: for so long requests are still taken and replies brought on their way. hickory would close the
/// connections without waiting for what is queued.
const LAST_REPLIES: Duration = Duration::from_millis(200);

/// And so long for the clients to be told that their connections are closed.
const LAST_WORDS: Duration = Duration::from_millis(50);

impl<R: Respond + Send + 'static> Engine<R> {
    /// For these sockets (non-blocking). A connection without a request for `idle` is closed.
    ///
    /// # Errors
    /// When the kernel gives no event queue, or will not have a socket watched.
    pub fn new(
        sockets: Vec<UdpSocket>,
        config: &Arc<ServerConfig>,
        idle: Duration,
        worker: Worker<R>,
        stop: watch::Receiver<Word>,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let counters = worker.counters.clone();
        let mut server = Server::new(Adapter::new(worker));
        let entered = runtime.enter();
        for socket in sockets {
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            server.register_quic_listener_and_tls_config(socket, idle, config.clone()).map_err(io::Error::other)?;
        }
        drop(entered);
        Ok(Engine { runtime, server, stop, counters })
    }

    /// Serves until told to stop.
    pub fn run(self) {
        let Engine { runtime, mut server, mut stop, counters } = self;
        runtime.block_on(async move {
            let mut alive = interval(SHOW_LIFE_EVERY);
            loop {
                tokio::select! {
                    _ = stop.wait_for(|word| *word != Word::Serve) => break, // an error means that the other end is gone: stop as well
                    _ = alive.tick() => counters.round(),
                }
            }
            sleep(LAST_REPLIES).await;
            if timeout(STOP_WITHIN - LAST_REPLIES - LAST_WORDS, server.shutdown_gracefully()).await.is_err() {
                tracing::info!("closing QUIC connections that did not finish in time");
            }
            sleep(LAST_WORDS).await;
        });
    }
}

#[async_trait]
impl<R: Respond + Send + 'static> RequestHandler for Adapter<R> {
    async fn handle_request<H: ResponseHandler, T: Time>(&self, request: &Request, mut handle: H) -> ResponseInfo {
        let carried = match self.answer(request) {
            None => return nothing_sent(request), // what breaks the protocol gets an empty stream
            Some(carried) => carried,
        };
        let sent = match &carried {
            Ok(carried) => handle.send_response(carried.response()).await,
            Err(error) => {
                tracing::debug!("a reply cannot be carried over QUIC: {error}");
                let failed = MessageResponseBuilder::from_message_request(request);
                handle.send_response(failed.error_msg(&request.metadata, ResponseCode::ServFail)).await
            }
        };
        sent.unwrap_or_else(|_| nothing_sent(request)) // the client is gone
    }
}

impl<R: Respond> Adapter<R> {
    /// In front of this worker.
    pub fn new(worker: Worker<R>) -> Self {
        let output = vec![0; usize::from(u16::MAX)].into();
        let inner = Inner { worker, stopwatch: Stopwatch::default(), output };
        Adapter { inner: Mutex::new(Box::new(inner)) }
    }

    /// `None`: no reply at all.
    fn answer(&self, request: &Request) -> Option<Result<Carried, DecodeError>> {
        let Inner { worker, stopwatch, output } = &mut **self.inner();
        let lap = stopwatch.begin();
        worker.respond.begin_batch();
        let reply = worker.respond.respond(request.as_slice(), request.src(), TransportKind::Doq, output);
        if let Some(took) = lap.end() {
            worker.counters.answer_times().record(TransportKind::Doq, took, 1);
        }
        match reply {
            Reply::Send(length) => Some(Carried::new(&output[..length])),
            Reply::Drop => None,
        }
    }

    /// A panic while it was held ends the process; in tests it does not, and what is behind the lock stays whole.
    fn inner(&self) -> MutexGuard<'_, Box<Inner<R>>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nothing_sent(request: &Request) -> ResponseInfo {
    let metadata = Metadata::response_from_request(&request.metadata);
    ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
}

/// A reply of the core's in the form that hickory sends.
struct Carried {
    queries: Queries,
    message: Message,
}

impl Carried {
    fn new(reply: &[u8]) -> Result<Carried, DecodeError> {
        let message = Message::from_vec(reply)?;
        // The question letter for letter, as the core copied it.
        let queries = Queries::read(&mut BinDecoder::new(&reply[HEADER_LEN..]), message.queries.len())?;
        let mut carried = Carried { queries, message };
        carried.pad_again();
        Ok(carried)
    }

    /// hickory packs names in its own way, so that the length which the core padded to is no longer the message's.
    fn pad_again(&mut self) {
        let Some(edns) = &mut self.message.edns else { return };
        if edns.options().get(EdnsCode::Padding).is_none() {
            return;
        }
        let padding = |len| EdnsOption::Unknown(option::PADDING, vec![0; len]);
        edns.options_mut().remove(EdnsCode::Padding);
        edns.options_mut().insert(padding(0));
        let Ok(bare) = self.encode() else { return };
        let padded_len = bare.len().next_multiple_of(PADDING_BLOCK).min(usize::from(u16::MAX));
        if let Some(edns) = &mut self.message.edns {
            edns.options_mut().remove(EdnsCode::Padding);
            edns.options_mut().insert(padding(padded_len.saturating_sub(bare.len())));
        }
    }

    fn response(
        &self,
    ) -> MessageResponse<
        '_,
        '_,
        impl Iterator<Item = &Record> + Send,
        impl Iterator<Item = &Record> + Send,
        impl Iterator<Item = &Record> + Send,
        impl Iterator<Item = &Record> + Send,
    > {
        let message = &self.message;
        MessageResponseBuilder::new(&self.queries, message.edns.as_ref()).build(
            message.metadata,
            &message.answers,
            &message.authorities,
            [],
            &message.additionals,
        )
    }

    /// The bytes that hickory sends for it.
    fn encode(&self) -> Result<Vec<u8>, ProtoError> {
        let mut bytes = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(u16::MAX);
        self.response().destructive_emit(&mut encoder)?;
        Ok(bytes)
    }
}
