#![no_main]

// The database library may panic on a broken file; the reader catches that and turns it into an error. The engine's own panic hook
// would end the process before; without it, a panic that nobody catches still ends it.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |data: &[u8]| isochrone_fuzz::mmdb(data));
