//! One worker's notes for the query log: which queries are drawn, and what is told of them. Like all of the core without a clock,
//! lock or allocation, but for the moment at which the configuration changes.

use super::{Arrival, Sent};
use crate::{
    latency::learn::Sampler,
    telemetry::{
        DropReason,
        query_log::{Entry, Logging, Noting},
    },
    wire::{Edns, Question},
};

/// What a core notes with.
pub(super) struct Notes {
    noting: Noting,
    sampler: Sampler,
    /// When the batch came, in milliseconds since 1970; 0: nobody said.
    at_ms: u64,
}

impl Notes {
    /// Under the terms of a snapshot; what was there before is kept where they are the same.
    pub(super) fn under(logging: Option<&Logging>, before: Option<Notes>) -> Option<Notes> {
        let logging = logging?;
        before.filter(|notes| std::sync::Arc::ptr_eq(notes.noting.terms(), &logging.terms)).or_else(|| {
            let noting = logging.log.join(&logging.terms);
            let sampler = Sampler::new(logging.terms.share, noting.seed());
            Some(Notes { noting, sampler, at_ms: 0 })
        })
    }

    /// When the queries from now on came.
    pub(super) fn set_time(&mut self, at_ms: u64) {
        self.at_ms = at_ms;
    }

    /// Notes a query, if it is drawn. `None` as what was sent: over the limit of its network.
    #[inline(never)] // with the log off, nothing of it is to stand in the way
    pub(super) fn note(
        &mut self,
        arrival: Arrival,
        question: Option<&Question<'_>>,
        edns: Option<&Edns>,
        sent: Option<&Sent>,
    ) {
        if !self.sampler.is_drawn() {
            return;
        }
        let subnet = edns.and_then(|edns| edns.ecs).filter(|ecs| ecs.source_len > 0);
        self.noting.note(&Entry {
            at_ms: self.at_ms.max(arrival.now_s * 1000),
            client: subnet.map_or(arrival.client, |ecs| ecs.address),
            subnet_len: subnet.map(|ecs| ecs.source_len),
            transport: arrival.transport,
            question: question.map(|question| (question.name.as_wire(), question.qtype)),
            answered: sent
                .and_then(|sent| sent.answered)
                .map(|(route, region, reason)| (route as u32, region.0, reason as u8)),
            scope_len: sent.and_then(|sent| sent.scope_len),
            outcome: sent.map(|sent| sent.rcode as u16).ok_or(DropReason::RateLimited),
            is_truncated: sent.is_some_and(|sent| sent.is_truncated),
        });
    }
}
