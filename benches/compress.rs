//! What compression costs for one message, by level and size: `cargo bench --bench compress`.
//!
//! A message is compressed once however many connections get it, so these are costs per message, not per delivery.
//! The sizes each level reaches are printed first.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::compress::{Deflater, History, Inflaters, WindowBits};
use fanfare::frame::{FrameBuilder, Opcode, split_frame};
use flate2::{Compress, Compression, FlushCompress};

const LEVELS: [u32; 4] = [1, 3, 6, 9];
const SIZES: [usize; 2] = [512, 4_096];

criterion_group! {
    name = compress;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    targets = deflate, inflate
}
criterion_main!(compress);

/// A room message whose content is a list of quotes: names that repeat, numbers that do not.
fn message(bytes: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut json = br#"{"type":"room_msg","roomId":"market.eu","from":"feed-7","content":{"quotes":["#.to_vec();
    let end = br#"]},"time":1795208523123}"#;
    while json.len() + end.len() + 90 < bytes {
        let (symbol, bid, size) = (random.u32(0..500), random.u32(10_000..99_999), random.u32(1..5_000));
        let spread = random.u32(1..40);
        json.extend_from_slice(
            format!(
                r#"{{"symbol":"SYM{symbol}","bid":{}.{:02},"ask":{}.{:02},"size":{size}}},"#,
                bid / 100,
                bid % 100,
                (bid + spread) / 100,
                (bid + spread) % 100
            )
            .as_bytes(),
        );
    }
    json.pop();
    json.extend_from_slice(end);
    json
}

fn frames(bytes: usize) -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(7);
    let frame = |_| {
        let message = message(bytes, &mut random);
        FrameBuilder::default().build(Opcode::Text, |out| out.extend_from_slice(&message)).to_vec()
    };
    (0..64).map(frame).collect()
}

fn deflate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deflate");
    for bytes in SIZES {
        let frames = frames(bytes);
        let plain: usize = frames.iter().map(Vec::len).sum();
        group.throughput(Throughput::Elements(1));
        for level in LEVELS {
            let (mut deflater, mut out, mut at) = (Deflater::new(level, 0), Vec::new(), 0);
            for frame in &frames {
                deflater.append(WindowBits::MAX, frame, &mut out);
            }
            println!("{bytes} bytes at level {level}: {:.0} % of the size", 100.0 * out.len() as f64 / plain as f64);
            group.bench_function(BenchmarkId::new(format!("level_{level}"), bytes), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    at = (at + 1) % frames.len();
                    black_box(deflater.append(WindowBits::MAX, black_box(&frames[at]), &mut out))
                });
            });
        }
    }
}

/// What a client sends: commands of 512 bytes and more, each referring to the earlier ones or not.
fn inflate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inflate");
    for bytes in SIZES {
        let frames = frames(bytes);
        for (name, bits) in [("alone", None), ("after_4_KiB", Some(12)), ("after_32_KiB", Some(15))] {
            let window_bytes = bits.map_or(0, |bits| 1_usize << bits);
            let mut client = Compress::new_with_window_bits(Compression::new(6), false, bits.unwrap_or(15));
            let mut compress = |message: &[u8]| {
                let mut out = Vec::with_capacity(bytes * 2);
                if bits.is_none() {
                    client.reset();
                }
                client.compress_vec(message, &mut out, FlushCompress::Sync).expect("zlib compresses anything");
                out.truncate(out.len() - 4);
                out
            };
            let (mut inflaters, mut history, mut out) = (Inflaters::default(), History::default(), Vec::new());
            let messages = frames.iter().cycle().take(100).map(|frame| split_frame(frame).1);
            let mut last = Vec::new();
            for message in messages {
                history.push(&out, window_bytes);
                last = compress(message);
                out.clear();
                inflaters.inflate(&last, Some(&history), &mut out, bytes).expect("it was compressed here");
            }
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(name, bytes), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    inflaters.inflate(black_box(&last), Some(&history), &mut out, bytes)
                });
            });
        }
    }
}
