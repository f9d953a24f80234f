//! Calls to the kernel that std does not wrap. The one room with `unsafe`.
#![allow(unsafe_code)]
