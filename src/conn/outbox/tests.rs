use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::super::source::Front;
use super::*;
use crate::frame::{Opcode, encode_header};
use proptest::prelude::*;

fn frames(payloads: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &payload in payloads {
        encode_header(&mut bytes, Opcode::Binary, payload);
        bytes.resize(bytes.len() + payload, payload as u8);
    }
    bytes
}

#[test]
fn a_frame_whose_first_byte_is_on_its_way_is_not_dropped() {
    let ledger = Ledger::default();
    let segment = Segment::local(frames(&[10, 20, 30]), Unit::Frames, Cause::Others, &ledger);
    for (is_begun, left) in [(false, 0), (true, 22)] {
        let mut outbox = Outbox::default();
        outbox.push(Chunk::new(segment.clone(), 0, 66), Millis(0));
        outbox.advance(12, Millis(0));
        if is_begun {
            outbox.begin_front();
        }
        outbox.truncate_to_frame(&ledger);
        assert_eq!(outbox.bytes(), left, "the first frame was sent whole");
        if is_begun {
            // Once bytes of it are sent it is as any other.
            outbox.push(Chunk::new(segment.clone(), 0, 66), Millis(0));
            outbox.advance(22 + 12, Millis(0));
            outbox.truncate_to_frame(&ledger);
            assert_eq!(outbox.bytes(), 0);
        }
    }
}

#[test]
fn bytes_are_counted_once_however_many_refer_to_them() {
    let ledger = Ledger::default();
    let segment = Segment::local(frames(&[100]), Unit::Frames, Cause::Others, &ledger);
    let mut outboxes: Vec<Outbox> = (0..50).map(|_| Outbox::default()).collect();
    for outbox in &mut outboxes {
        outbox.push(Chunk::new(segment.clone(), 0, 102), Millis(0));
    }
    drop(segment);
    assert_eq!(ledger.bytes(), 102);
    drop(outboxes);
    assert_eq!(ledger.bytes(), 0);
}

#[test]
fn the_message_at_the_front_does_not_count_against_the_bound() {
    let ledger = Ledger::default();
    let mut outbox = Outbox::default();
    let bytes = frames(&[5_000, 10, 20]);
    let len = bytes.len();
    outbox.push(Chunk::new(Segment::local(bytes, Unit::Frames, Cause::Others, &ledger), 0, len), Millis(0));
    assert_eq!(outbox.bytes_behind_first(), 34);
    outbox.advance(4_000, Millis(1));
    assert_eq!(outbox.bytes_behind_first(), 34);
    outbox.advance(1_004, Millis(1));
    assert_eq!(outbox.bytes_behind_first(), 22, "the frame of 10 is at the front now");
}

#[test]
fn truncation_leaves_the_rest_of_a_begun_frame_only() {
    let ledger = Ledger::default();
    let bytes = frames(&[50, 60]);
    for (sent, left) in [(0, 0), (1, 51), (51, 1), (52, 0), (53, 61)] {
        let mut outbox = Outbox::default();
        outbox.push(
            Chunk::new(Segment::local(bytes.clone(), Unit::Frames, Cause::Others, &ledger), 0, bytes.len()),
            Millis(0),
        );
        outbox.push(
            Chunk::new(Segment::local(bytes.clone(), Unit::Frames, Cause::Others, &ledger), 0, bytes.len()),
            Millis(0),
        );
        outbox.advance(sent, Millis(0));
        outbox.truncate_to_frame(&ledger);
        assert_eq!(outbox.bytes(), left, "after {sent} sent");
        assert_eq!(outbox.is_empty(), left == 0);
    }
    assert_eq!(ledger.bytes(), 0);
}

#[test]
fn a_response_is_never_cut_nor_dropped() {
    let ledger = Ledger::default();
    let response = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
    let len = response.len();
    for sent in [0, 5] {
        let mut outbox = Outbox::default();
        outbox
            .push(Chunk::new(Segment::local(response.clone(), Unit::Whole, Cause::Others, &ledger), 0, len), Millis(0));
        outbox.push(Chunk::new(Segment::local(frames(&[7]), Unit::Frames, Cause::Others, &ledger), 0, 9), Millis(0));
        outbox.advance(sent, Millis(0));
        assert_eq!(outbox.bytes_behind_first(), 9);
        outbox.truncate_to_frame(&ledger);
        assert_eq!(outbox.bytes(), len - sent);
    }
}

#[test]
fn a_scrap_is_copied_out_and_a_segment_that_others_hold_is_not() {
    let ledger = Ledger::default();
    let bytes = frames(&[10, 50_000, 10]);
    let len = bytes.len();
    let segment = Segment::local(bytes.clone(), Unit::Frames, Cause::Others, &ledger);
    let mut outboxes: [Outbox; 2] = Default::default();
    for outbox in &mut outboxes {
        outbox.push(Chunk::new(segment.clone(), 0, 12), Millis(0));
        outbox.push(Chunk::new(segment.clone(), len - 12, len), Millis(0));
    }
    drop(segment);
    assert_eq!(outboxes[0].pinned_bytes(), len / 4 * 2, "two of four references");
    let [mut front, mut back] = outboxes;
    front.advance(12, Millis(0));
    back.advance(15, Millis(0));
    front.copy_scraps(&ledger);
    back.copy_scraps(&ledger);
    assert_eq!(ledger.bytes(), 12 + 9, "what is still to be sent");
    assert_eq!((front.pinned_bytes(), back.pinned_bytes()), (12, 9));
    assert_eq!(back.slices(9).flatten().copied().collect::<Vec<u8>>(), &bytes[len - 9..]);
    back.truncate_to_frame(&ledger);
    assert_eq!(back.bytes(), 9, "the rest of a frame of which a part was sent");
    front.truncate_to_frame(&ledger);
    assert_eq!(front.bytes(), 0);
}

#[test]
fn a_scrap_is_cut_behind_the_frame_that_was_begun() {
    let ledger = Ledger::default();
    let bytes = frames(&[50_000, 10, 20]);
    let len = bytes.len();
    let mut outbox = Outbox::default();
    outbox.push(Chunk::new(Segment::local(bytes, Unit::Frames, Cause::Others, &ledger), 0, len), Millis(0));
    outbox.advance(49_000, Millis(0));
    let left = outbox.bytes();
    outbox.copy_scraps(&ledger);
    assert_eq!((outbox.bytes(), outbox.bytes_behind_first(), ledger.bytes()), (left, 34, left));
    outbox.truncate_to_frame(&ledger);
    assert_eq!(outbox.bytes(), left - 34);
}

#[test]
fn progress_is_when_the_kernel_took_bytes() {
    let mut outbox = Outbox::default();
    assert_eq!(outbox.progress_at(), None);
    outbox.push(
        Chunk::new(Segment::shared(frames(&[9])[..].into(), Cause::Others, &Ledger::default()), 0, 11),
        Millis(5),
    );
    outbox.advance(0, Millis(7));
    assert_eq!(outbox.progress_at(), Some(Millis(5)));
    outbox.advance(1, Millis(9));
    assert_eq!(outbox.progress_at(), Some(Millis(9)));
}

proptest! {
    #[test]
    fn what_goes_in_comes_out_in_order(
        payloads in proptest::collection::vec(proptest::collection::vec(0_usize..300, 1..4), 1..20),
        sends in proptest::collection::vec(1_usize..500, 1..50),
    ) {
        let ledger = Ledger::default();
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for group in &payloads {
            let bytes = frames(group);
            expected.extend_from_slice(&bytes);
            let len = bytes.len();
            outbox.push(Chunk::new(Segment::local(bytes, Unit::Frames, Cause::Others, &ledger), 0, len), Millis(0));
        }
        let mut got = Vec::new();
        for send in sends.iter().cycle().take(10_000) {
            prop_assert_eq!(outbox.bytes(), expected.len() - got.len());
            if outbox.is_empty() {
                break;
            }
            let all: Vec<u8> = outbox.slices(64).flatten().copied().collect();
            let sent = (*send).min(all.len());
            got.extend_from_slice(&all[..sent]);
            outbox.advance(sent, Millis(1));
        }
        prop_assert_eq!(got, expected);
        prop_assert_eq!(ledger.bytes(), 0);
    }
}

/// What of a segment of rounds waits in an outbox that is given the whole of it.
fn round(outbox: &mut Outbox, segment: &Rc<Segment>) {
    outbox.push(Chunk::new(segment.clone(), 0, segment.bytes().len()), Millis(0));
}

/// Cuts the rounds; what was told.
fn cut(outbox: &mut Outbox, ledger: &Ledger) -> Vec<(u32, usize)> {
    let mut told = Vec::new();
    outbox.cut_rounds(ledger, |RoundNumber(number), taken| told.push((number, taken)));
    told
}

#[test]
fn of_a_round_the_rest_of_one_frame_stays_and_the_others_share_what_they_have_still_to_send() {
    let ledger = Ledger::default();
    for (sent, is_begun, taken, left) in [
        (0, false, 0, 0),
        (0, true, 1, 12),
        (5, false, 1, 7),
        (12, false, 1, 0),
        (12, true, 2, 5_004),
        (4_012, false, 2, 1_004),
        (5_016 + 7, false, 3, 3),
    ] {
        let bytes = frames(&[10, 5_000, 8]);
        let segment = Segment::local(bytes, Unit::Frames, Cause::Round(RoundNumber(4)), &ledger);
        let mut outbox = Outbox::default();
        round(&mut outbox, &segment);
        outbox.advance(sent, Millis(0));
        if is_begun {
            outbox.begin_front();
        }
        let told = if taken < 3 { vec![(4, taken)] } else { vec![] };
        assert_eq!(cut(&mut outbox, &ledger), told, "{sent} sent");
        drop(segment);
        assert_eq!((ledger.bytes(), outbox.pinned_bytes()), (left, left), "{sent} sent");
        assert_eq!(outbox.is_empty(), left == 0);
        assert_eq!(cut(&mut outbox, &ledger), [], "what has begun is not cut again");
        outbox.copy_scraps(&ledger);
        outbox.truncate_to_frame(&ledger);
        assert_eq!(outbox.slices(9).flatten().count(), left, "nor dropped");
    }
}

#[test]
fn a_round_between_others_goes_and_they_stay() {
    let ledger = Ledger::default();
    let others = Segment::local(frames(&[100]), Unit::Frames, Cause::Others, &ledger);
    let own = Segment::local(frames(&[50]), Unit::Frames, Cause::Own, &ledger);
    let rounds = [1, 2]
        .map(|number| Segment::local(frames(&[20, 30]), Unit::Frames, Cause::Round(RoundNumber(number)), &ledger));
    let mut outbox = Outbox::default();
    for segment in [&others, &rounds[0], &own, &rounds[1], &others] {
        round(&mut outbox, segment);
    }
    assert_eq!((outbox.bytes(), outbox.own_bytes()), (102 + 52 + 102, 52));
    outbox.advance(102 + 22 + 1, Millis(1));
    assert_eq!(cut(&mut outbox, &ledger), [(2, 0)], "of the first everything has begun");
    assert_eq!((outbox.bytes(), outbox.own_bytes(), outbox.bytes_behind_first()), (52 + 102, 52, 102));
    assert_eq!(outbox.slices(9).map(<[u8]>::len).collect::<Vec<_>>(), [31, 52, 102]);
    drop((rounds, own, others));
    assert_eq!(ledger.bytes(), 31 + 52 + 102);
}

#[test]
fn what_the_server_sends_in_its_own_time_counts_for_no_bound() {
    let ledger = Ledger::default();
    let mut outbox = Outbox::default();
    let of = |cause, payload| Segment::local(frames(&[payload]), Unit::Frames, cause, &ledger);
    let push = |outbox: &mut Outbox, cause, payload, at| {
        outbox.push(Chunk::new(of(cause, payload), 0, payload + 2), Millis(at));
    };
    push(&mut outbox, Cause::Round(RoundNumber(0)), 100, 1);
    outbox.advance(10, Millis(2));
    cut(&mut outbox, &ledger);
    push(&mut outbox, Cause::Heartbeat, 0, 3);
    assert_eq!((outbox.bytes(), outbox.bytes_behind_first(), outbox.own_bytes()), (0, 0, 0));
    assert_eq!((outbox.progress_at(), outbox.is_pulling(), outbox.has_ping()), (None, false, true));
    assert_eq!(outbox.pinned_bytes(), 92 + 2, "but for memory");
    push(&mut outbox, Cause::Others, 90, 50);
    push(&mut outbox, Cause::Own, 80, 60);
    assert_eq!((outbox.bytes(), outbox.bytes_behind_first(), outbox.own_bytes()), (92 + 82, 82, 82));
    assert_eq!(outbox.progress_at(), Some(Millis(50)), "it has waited since it came");
    outbox.advance(92 + 1, Millis(70));
    assert_eq!((outbox.progress_at(), outbox.has_ping()), (Some(Millis(70)), true));
    outbox.advance(1 + 92 + 82, Millis(80));
    assert!(outbox.is_empty());
}

#[test]
fn a_segments_buffer_is_free_again_when_nothing_refers_to_it() {
    let ledger = Ledger::default();
    let segment = Segment::local(frames(&[100]), Unit::Frames, Cause::Others, &ledger);
    assert_eq!(Segment::into_buffer(segment.clone()), None);
    assert_eq!(ledger.bytes(), 102);
    assert_eq!(Segment::into_buffer(segment), Some(frames(&[100])));
    assert_eq!(ledger.bytes(), 0);
}

/// What is put into an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    Others,
    Own,
    Ping,
    Source,
    Round,
}

#[derive(Clone, Debug)]
enum Op {
    Put(Put, Vec<usize>),
    /// So many of a hundred bytes that a send has are taken, or as many whole frames as that makes; where not all are, the
    /// first byte that is not may be on its way.
    Send {
        part: usize,
        is_whole: bool,
        is_ahead: bool,
    },
    Writable,
    CopyScraps,
}

fn op() -> impl Strategy<Value = Op> {
    let put = prop::sample::select(vec![Put::Others, Put::Own, Put::Ping, Put::Source, Put::Round, Put::Round]);
    prop_oneof![
        4 => (put, prop::collection::vec(0_usize..300, 1..5)).prop_map(|(put, payloads)| Op::Put(put, payloads)),
        4 => (0_usize..150, any::<bool>(), any::<bool>())
            .prop_map(|(part, is_whole, is_ahead)| Op::Send { part, is_whole, is_ahead }),
        2 => Just(Op::Writable),
        1 => Just(Op::CopyScraps),
    ]
}

/// Frames of a list, sent one by one.
#[derive(Debug)]
struct Listed(VecDeque<Vec<u8>>);

impl FrameSource for Listed {
    fn pull(&mut self, _front: Front, frames_max: usize) -> usize {
        frames_max.min(self.0.len())
    }

    fn frame(&self, at: usize) -> &[u8] {
        &self.0[at]
    }

    fn advance(&mut self, frames: usize) {
        self.0.drain(..frames);
    }

    fn reference_bytes(&self) -> usize {
        10
    }
}

/// A frame that waits, as the model has it.
#[derive(Clone, Debug)]
struct Waiting {
    put: Put,
    /// Which of the things that were put, and which of its frames.
    group: u32,
    at: usize,
    rest: Vec<u8>,
    has_begun: bool,
    /// Of a round that was cut: what of the frame was kept.
    rest_bytes: usize,
}

/// An outbox as a list of frames.
#[derive(Debug, Default)]
struct Model {
    frames: VecDeque<Waiting>,
    /// Bytes of each group's segment.
    group_bytes: Vec<usize>,
    /// All frames that were put, by group.
    all: Vec<Vec<Vec<u8>>>,
    out: Vec<u8>,
    progress_at: Millis,
}

impl Model {
    fn waits(&self, puts: &[Put]) -> usize {
        self.frames.iter().filter(|frame| puts.contains(&frame.put)).map(|frame| frame.rest.len()).sum()
    }

    fn is_counted(&self) -> bool {
        self.frames.iter().any(|frame| matches!(frame.put, Put::Others | Put::Own | Put::Source))
    }

    fn groups(&self, put: Put) -> BTreeSet<u32> {
        self.frames.iter().filter(|frame| frame.put == put).map(|frame| frame.group).collect()
    }

    /// Where each frame of a group has a payload of its own.
    fn put(&mut self, put: Put, payloads: &[usize], now: Millis) -> Vec<Vec<u8>> {
        if !self.is_counted() && matches!(put, Put::Others | Put::Own | Put::Source) {
            self.progress_at = now;
        }
        let group = self.group_bytes.len() as u32;
        let made: Vec<Vec<u8>> = payloads
            .iter()
            .enumerate()
            .map(|(at, &payload)| {
                let mut frame = Vec::new();
                encode_header(&mut frame, Opcode::Binary, payload + 3);
                frame.extend_from_slice(&[group as u8, (group >> 8) as u8, at as u8]);
                frame.resize(frame.len() + payload, b'.');
                frame
            })
            .collect();
        self.group_bytes.push(made.iter().map(Vec::len).sum());
        self.all.push(made.clone());
        let waiting = made.iter().enumerate().map(|(at, rest)| Waiting {
            put,
            group,
            at,
            rest: rest.clone(),
            has_begun: false,
            rest_bytes: 0,
        });
        self.frames.extend(waiting);
        made
    }

    /// So many bytes, or as many whole frames as they make.
    fn takes(&self, bytes: usize, is_whole: bool) -> usize {
        let ends = self.frames.iter().scan(0, |end, frame| {
            *end += frame.rest.len();
            Some(*end)
        });
        if is_whole { ends.take_while(|&end| end <= bytes).last().unwrap_or(0) } else { bytes }
    }

    fn send(&mut self, mut bytes: usize, now: Millis) {
        if bytes > 0 {
            self.progress_at = now;
        }
        while bytes > 0 {
            let mut frame = self.frames.pop_front().unwrap();
            let part = bytes.min(frame.rest.len());
            self.out.extend(frame.rest.drain(..part));
            bytes -= part;
            if !frame.rest.is_empty() {
                frame.has_begun = true;
                self.frames.push_front(frame);
            }
        }
    }

    /// What is to be told.
    fn cut(&mut self) -> Vec<(u32, usize)> {
        let mut told: Vec<(u32, usize)> = Vec::new();
        self.frames.retain_mut(|frame| {
            let stays = frame.put != Put::Round || frame.has_begun;
            if !stays && told.last().is_none_or(|(group, _)| *group != frame.group) {
                told.push((frame.group, frame.at));
            }
            if stays && frame.put == Put::Round && frame.rest_bytes == 0 {
                frame.rest_bytes = frame.rest.len();
            }
            stays
        });
        told
    }

    fn bytes_behind_first(&self) -> usize {
        let counted = self.waits(&[Put::Others, Put::Own]);
        let first = self.frames.iter().find(|frame| matches!(frame.put, Put::Others | Put::Own | Put::Source));
        match first {
            Some(frame) if frame.put != Put::Source => counted - frame.rest.len(),
            Some(_) | None => counted,
        }
    }
}

fn put(outbox: &mut Outbox, put: Put, frames: Vec<Vec<u8>>, group: u32, ledger: &Ledger, now: Millis) {
    let cause = match put {
        Put::Others => Cause::Others,
        Put::Own => Cause::Own,
        Put::Ping => Cause::Heartbeat,
        Put::Round => Cause::Round(RoundNumber(group)),
        Put::Source => return outbox.push_source(Box::new(Listed(frames.into())), now),
    };
    let bytes = frames.concat();
    let len = bytes.len();
    outbox.push(Chunk::new(Segment::local(bytes, Unit::Frames, cause, ledger), 0, len), now);
}

/// Compares an outbox with its model.
fn compare(outbox: &mut Outbox, model: &Model, are_scraps_copied: bool, ledger: &Ledger) -> Result<(), TestCaseError> {
    outbox.pull(1_000);
    let expected: Vec<u8> = model.frames.iter().flat_map(|frame| frame.rest.clone()).collect();
    prop_assert_eq!(outbox.slices(1_000).flatten().copied().collect::<Vec<u8>>(), expected);
    let sources = model.groups(Put::Source).len();
    prop_assert_eq!(outbox.bytes(), model.waits(&[Put::Others, Put::Own]));
    prop_assert_eq!(outbox.own_bytes(), model.waits(&[Put::Own]) + 10 * sources);
    prop_assert_eq!(outbox.bytes_behind_first(), model.bytes_behind_first());
    prop_assert_eq!(outbox.progress_at(), model.is_counted().then_some(model.progress_at));
    prop_assert_eq!(outbox.has_ping(), !model.groups(Put::Ping).is_empty());
    prop_assert_eq!(outbox.is_pulling(), sources > 0);
    prop_assert_eq!(outbox.is_empty(), model.frames.is_empty());
    prop_assert_eq!(outbox.pinned_bytes(), ledger.bytes());
    if !are_scraps_copied && model.frames.iter().all(|frame| frame.put != Put::Round || frame.rest_bytes > 0) {
        let whole = [Put::Others, Put::Own, Put::Ping].into_iter().flat_map(|put| model.groups(put));
        let whole_bytes: usize = whole.map(|group| model.group_bytes[group as usize]).sum();
        let rest_bytes: usize = model.frames.iter().map(|frame| frame.rest_bytes).sum();
        prop_assert_eq!(ledger.bytes(), whole_bytes + rest_bytes, "of rounds, the rest of a frame");
    }
    Ok(())
}

proptest! {
    /// Whatever comes in between and however little a socket takes: what leaves is whole frames in order, of each round a
    /// prefix of whole frames, as long as was told, and of all else everything.
    #[test]
    fn of_rounds_a_prefix_comes_out_and_of_all_else_everything(ops in prop::collection::vec(op(), 1..60)) {
        const SLICES_MAX: usize = 4;
        let ledger = Ledger::default();
        let (mut outbox, mut model) = (Outbox::default(), Model::default());
        let (mut has_room, mut are_scraps_copied) = (true, false);
        let mut told_of_rounds = BTreeMap::new();
        let drain = std::iter::repeat_n([Op::Writable, Op::Send { part: 100, is_whole: false, is_ahead: false }], 300).flatten();
        for (at, op) in ops.into_iter().chain(drain).enumerate() {
            let now = Millis(at as u64);
            match op {
                Op::Put(Put::Round, _) if !has_room => {}
                Op::Put(kind, payloads) => {
                    let frames = model.put(kind, &payloads, now);
                    put(&mut outbox, kind, frames, model.group_bytes.len() as u32 - 1, &ledger, now);
                }
                Op::Send { part, is_whole, is_ahead } if has_room => {
                    outbox.pull(SLICES_MAX);
                    let given = outbox.slices(SLICES_MAX).map(<[u8]>::len).sum::<usize>();
                    let taken = model.takes(given.min(given * part / 100), is_whole);
                    outbox.advance(taken, now);
                    model.send(taken, now);
                    has_room = taken == given;
                    if !has_room {
                        if is_ahead {
                            outbox.begin_front();
                            model.frames[0].has_begun = true;
                        }
                        let told = cut(&mut outbox, &ledger);
                        prop_assert_eq!(&told, &model.cut());
                        told_of_rounds.extend(told);
                    }
                }
                Op::Send { .. } => {}
                Op::Writable => has_room = true,
                Op::CopyScraps => {
                    outbox.copy_scraps(&ledger);
                    are_scraps_copied = true;
                }
            }
            compare(&mut outbox, &model, are_scraps_copied, &ledger)?;
        }
        prop_assert_eq!(ledger.bytes(), 0);
        let mut expected = Vec::new();
        for (group, frames) in model.all.iter().enumerate() {
            let taken = told_of_rounds.get(&(group as u32)).copied().unwrap_or(frames.len());
            expected.extend(frames[..taken].concat());
        }
        prop_assert_eq!(model.out, expected);
    }
}
