//! One process takes over from another without a query lost: the sockets go from hand to hand and are never closed, so that what waits
//! in their queues is answered by one of the two.
//!
//! ```text
//! the new one (`taker`)                          the old one (`giver`)
//! reads and compiles everything
//! Hello ───────────────────────────────────────▶ who asks? is nobody else at it?
//!                          sockets, state ◀───── Offer
//! publishes, starts to answer                    (both answer)
//! Serving ─────────────────────────────────────▶ takes in no decisions and writes no state from now on
//!                               decisions ◀───── Released; stops reading sockets, says nothing to its cluster
//!                                         ◀───── Stopped (QUIC has ended); answers who is connected, and ends
//! the rest: QUIC, cluster, admin, state files
//! ```
//!
//! Up to `Released` the old one serves as if nothing were: whatever happens to the new one, only the handles on the sockets that it was
//! given are closed. The new one, once it has said that it serves, waits without end for an answer, or for the end of the old one, which
//! is as good: it has the sockets.

pub mod doors;
pub mod giver;
mod learnt;
pub mod line;
pub mod taker;

pub use self::{
    doors::Doors,
    giver::{Giver, Successor},
    taker::{Taken, TakeoverError},
};
