//! The examples that keep an order book: each compares its book with the publisher's, whatever happens to its connection.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fanfare_testing::Server;
use serde_json::Value;

use super::relay::Relay;
use super::{EXAMPLE_PATIENCE, Example, examples_folder, node_example, python};

/// How often the connection of the book is cut.
const CUTS: u64 = 8;

/// A short memory of removals, and an absence that is longer.
const RULE: &str = "match=book.*,keyed=true,items.removed_ttl=3s";
const ABSENCE: Duration = Duration::from_secs(5);
const ABSENCES_MAX: usize = 4;

pub fn example_order_book_node(reactors: usize) {
    book_stays_right(reactors, node_example("market/book.mjs"));
}

pub fn example_order_book_python(reactors: usize) {
    let mut command = Command::new(python());
    command.arg(examples_folder().join("market/book.py")).stdin(Stdio::null());
    book_stays_right(reactors, command);
}

fn book_stays_right(reactors: usize, mut book: Command) {
    let server = Server::with_reactors(reactors, &["--room", RULE]);
    let (of_feed, of_book) = (Relay::before(server.addr()), Relay::before(server.addr()));
    let _feed = Example::start(node_example("market/publisher.mjs").arg(of_feed.url()).arg("book.ACME"));
    let book = Example::start(book.arg(of_book.url()).args(["book.ACME", "30"]));

    let mut counts = comes_to(&book, |counts| counts.checks >= 20);
    assert_eq!((counts.anew, counts.recovered), (1, 0));
    for cut in 1..=CUTS {
        of_book.cut();
        let back = comes_to(&book, |counts| counts.recovered + counts.anew > cut);
        counts = comes_to(&book, |counts| counts.checks > back.checks);
    }
    assert!(counts.recovered > 0, "a short absence is made good: {counts:?}");

    // A feed that comes back puts its whole book in place of what is there.
    of_feed.cut();
    counts = comes_to(&book, |now| now.checks >= counts.checks + 20);

    // Away for longer than removals are remembered, a book has to begin anew; unless the feed, on a loaded machine, has removed
    // nothing in time.
    let mut anew = counts;
    for _ in 0..ABSENCES_MAX {
        of_book.set_down(true);
        thread::sleep(ABSENCE);
        of_book.set_down(false);
        let before = anew;
        anew = comes_to(&book, |now| now.recovered + now.anew > before.recovered + before.anew);
        if anew.anew > counts.anew {
            break;
        }
    }
    assert!(anew.anew > counts.anew, "what was forgotten is told: {anew:?}");
    let last = comes_to(&book, |now| now.checks >= anew.checks + 20);
    assert!(last.unsent > 0, "values were left out for newer ones: {last:?}");
}

/// What a book says of itself, each time it was right.
#[derive(Clone, Copy, Debug)]
struct Counts {
    checks: u64,
    recovered: u64,
    anew: u64,
    unsent: u64,
}

/// Reads on until the counts are as wanted. No line says that the book was wrong.
#[track_caller]
fn comes_to(book: &Example, is_wanted: impl Fn(Counts) -> bool) -> Counts {
    let deadline = Instant::now() + EXAMPLE_PATIENCE;
    let mut last = String::new();
    while let Ok(line) = book.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        assert!(line.starts_with("right at offset "), "{line}, after {last}");
        let counts = line.find('{').and_then(|at| serde_json::from_str::<Value>(&line[at..]).ok()).expect("counts");
        let count = |name: &str| counts[name].as_u64().expect("a count");
        let counts = Counts {
            checks: count("checks"),
            recovered: count("recovered"),
            anew: count("anew"),
            unsent: count("unsent"),
        };
        if is_wanted(counts) {
            return counts;
        }
        last = line;
    }
    panic!("the book did not come so far: {last}")
}
