//! What it costs to read a large configuration again: all of it, and where one server differs.

use std::fmt::Write;
use std::hint::black_box;

use criterion::Criterion;

use thalweg::config::{Config, FileText, Inputs, Nowhere};

/// 500 forwards of ten servers each, all of this weight but for one.
fn inputs(weight: u32, one: u32) -> Inputs {
    let mut text = String::new();
    for forward in 0..500 {
        let _ = write!(
            text,
            "[[forward]]\nname = \"f{forward}\"\nlisten = \"127.0.0.1:{}\"\n\
             [forward.upstream]\nservers = [",
            2_000 + forward
        );
        for server in 0..10 {
            let weight = if (forward, server) == (250, 5) {
                one
            } else {
                weight
            };
            let _ = write!(
                text,
                "{{ address = \"127.1.{}.{}:{}\", weight = {weight} }}, ",
                forward >> 8,
                forward & 255,
                7_000 + server
            );
        }
        text.push_str("]\n");
    }
    Inputs {
        file: Some(FileText {
            name: "bench.toml".to_owned(),
            bytes: text.into_bytes(),
        }),
        ..Inputs::default()
    }
}

/// Reading, and finding out what is the very same.
pub(super) fn reading(criterion: &mut Criterion) {
    let load = |inputs: &Inputs, before: Option<&Config>| {
        let mut config = Config::load_again(inputs, &Nowhere, before).expect("a configuration");
        if let Some(before) = before {
            config.share(before);
        }
        config
    };
    let before = load(&inputs(1, 1), None);
    let mut group = criterion.benchmark_group("read_5000_servers");
    group.sample_size(20);
    for (name, now) in [("all_differ", inputs(2, 2)), ("one_differs", inputs(1, 2))] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(load(&now, Some(&before))));
        });
    }
    group.finish();
}
