//! From an address to its ranking and scope.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv6Addr},
};

use criterion::Criterion;

use crate::{fixture::Fixture, queries::Chance};

/// Addresses that are looked up in turn: more than the caches close to the core hold ranges for.
const ADDRESSES: usize = 1 << 16;

pub fn bench(criterion: &mut Criterion) {
    let fixture = Fixture::new(super::CONFIG);
    let map = &fixture.snapshot.plan.maps[fixture.snapshot.plan.routes[0].map];
    let mut chance = Chance::new(2);
    let v4: Vec<IpAddr> = (0..ADDRESSES).map(|_| chance.network().into()).collect();
    // 2000::/3.
    let v6 = (0..ADDRESSES).map(|_| {
        let top = 0x2000_0000_0000_0000 | chance.next() >> 3;
        Ipv6Addr::from_bits(u128::from(top) << 64).into()
    });
    for (name, addresses) in [("IPv4", v4), ("IPv6", v6.collect())] {
        let mut turn = 0;
        criterion.bench_function(&format!("map/{name}"), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % ADDRESSES;
                map.locate(black_box(addresses[turn]))
            });
        });
    }
}
