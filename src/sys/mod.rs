//! Calls to the kernel that std does not wrap. The one room with `unsafe`; it must never know what the bytes mean.
#![allow(unsafe_code)]

pub mod batch;
pub mod descriptors;
pub mod errors;
pub mod limits;
pub mod memory;
pub mod names;
pub mod options;
pub mod priority;
pub mod privileges;
pub mod sandbox;
pub mod tcp_info;

pub use batch::{Datagram, UdpBatch};
