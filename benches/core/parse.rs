//! From bytes to a question and its options.

use std::{hint::black_box, net::Ipv4Addr};

use criterion::Criterion;
use isochrone::wire::{QName, query};

use crate::queries::Query;

pub fn bench(criterion: &mut Criterion) {
    let plain = Query::new("h0123456789.app.example.com");
    let longest = format!("{}com", "a.".repeat(125));
    let cases = [
        ("plain", plain.bytes(0)),
        ("client subnet", plain.clone().client(Ipv4Addr::new(18, 184, 0, 0)).bytes(0)),
        ("126 labels", Query::new(longest).bytes(0)),
        ("option of 4 kB", plain.padded_to(4000).bytes(0)),
        ("not a query", vec![0xff; 512]),
    ];
    for (name, bytes) in cases {
        let mut qname = QName::default();
        criterion.bench_function(&format!("parse/{name}"), |bencher| {
            bencher.iter(|| {
                black_box(query::parse(black_box(&bytes), &mut qname));
            });
        });
    }
}
