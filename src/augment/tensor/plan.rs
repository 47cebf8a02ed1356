//! The parameters of a batch as one array of numbers: everything that the device is told.
//!
//! Made on the host, by any thread. Chunks are consecutive parts of the views sorted by the place of the hue among the
//! colour operations, latest first, views without jitter at the end.

use super::packed;
use crate::augment::filter::Span;
use crate::augment::recipe::{Jitter, JitterOp, ViewParameters};
use crate::augment::{OPS, Op, hue, resample};

/// Numbers an axis: see `weights`.
pub(super) const AXIS: usize = 8;
/// Numbers of a round of colour: factor, whether contrast, whether saturation.
pub(super) const ROUND: usize = 3;
/// Rounds of colour before the hue, and as many after it.
pub(super) const ROUNDS: usize = 3;
/// Numbers of a view's colours: the rounds before and after, and the steps of hue between.
pub(super) const COLORS: usize = 2 * ROUNDS * ROUND + 1;

/// Part of the array.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    pub at: usize,
    pub len: usize,
}

/// Views that are rendered together.
#[derive(Debug)]
pub(super) struct Chunk {
    pub views: usize,
    /// Taps of the longest window of weights.
    pub taps: usize,
    /// `[v]`: where each view belongs in the batch.
    pub places: Section,
    /// `[2v, AXIS]`: the columns of all views, then their rows; empty where views are resized already.
    pub axes: Section,
    /// Which views are narrowed before they are shortened, and which the other way round.
    pub horizontal_first: Section,
    pub vertical_first: Section,
    /// `[jittered, COLORS]` of the first views, those with jitter.
    pub colors: Section,
    pub jittered: usize,
    /// Round k before the hue is for the first `before[k]` views.
    pub before: [usize; ROUNDS],
    /// Round k after the hue is for the last `after[k]` of the jittered views.
    pub after: [usize; ROUNDS],
    /// For each of `OPS`.
    pub ops: Vec<Listed>,
}

/// The views of a chunk that have an operation.
#[derive(Debug)]
pub(super) struct Listed {
    /// `[n]`
    pub views: Section,
    /// `[n, Op::most_numbers]`
    pub numbers: Section,
}

/// What a device is told of a batch of views.
#[derive(Debug)]
pub struct Plan {
    numbers: Vec<f64>,
    chunks: Vec<Chunk>,
    views: usize,
    /// For the kernel that renders whole views, instead of all that: rows of `packed::words`.
    descriptions: Option<Vec<i32>>,
}

impl Plan {
    pub(super) fn new(
        views: &[ViewParameters],
        size_px: usize,
        kernel_px: usize,
        resizes: bool,
        chunk_views: usize,
    ) -> Plan {
        let mut sorted: Vec<usize> = (0..views.len()).collect();
        sorted.sort_by_key(|&place| views[place].jitter.map_or(ROUNDS + 1, |jitter| ROUNDS - hue_place(&jitter)));
        let mut plan = Plan { numbers: Vec::new(), chunks: Vec::new(), views: views.len(), descriptions: None };
        for places in sorted.chunks(chunk_views.max(1)) {
            let chosen: Vec<&ViewParameters> = places.iter().map(|&place| &views[place]).collect();
            let chunk = plan.chunk(places, &chosen, size_px, kernel_px, resizes);
            plan.chunks.push(chunk);
        }
        plan
    }

    /// For the kernel that renders whole views.
    pub(super) fn packed(views: &[ViewParameters], size_px: usize, kernel_px: usize) -> Plan {
        let descriptions = Some(packed::describe(views, size_px, kernel_px));
        Plan { numbers: Vec::new(), chunks: Vec::new(), views: views.len(), descriptions }
    }

    /// Views of the batch.
    pub fn views(&self) -> usize {
        self.views
    }

    /// Groups of views that are rendered one after the other; none where a kernel renders all of them.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn numbers(&self) -> &[f64] {
        &self.numbers
    }

    pub(super) fn descriptions(&self) -> Option<&[i32]> {
        self.descriptions.as_deref()
    }

    pub(super) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    fn section(&mut self, numbers: impl IntoIterator<Item = f64>) -> Section {
        let at = self.numbers.len();
        self.numbers.extend(numbers);
        Section { at, len: self.numbers.len() - at }
    }

    /// Which of `views` are of a kind.
    fn list(&mut self, views: &[&ViewParameters], kind: impl Fn(&ViewParameters) -> bool) -> Section {
        let chosen = views.iter().enumerate().filter(|(_, view)| kind(view));
        self.section(chosen.map(|(place, _)| place as f64))
    }

    /// Which of `views` have operation `op`, number `place`, and what the device is told of each.
    fn listed(&mut self, views: &[&ViewParameters], place: usize, op: &Op, kernel_px: usize) -> Listed {
        let numbers = views.iter().filter_map(|view| view.ops[place]).flat_map(|number| {
            let mut numbers = (op.numbers)(number, kernel_px);
            numbers.resize((op.most_numbers)(kernel_px), 0.0);
            numbers.into_iter().map(f64::from)
        });
        Listed { views: self.list(views, |view| view.ops[place].is_some()), numbers: self.section(numbers) }
    }

    fn chunk(
        &mut self,
        places: &[usize],
        views: &[&ViewParameters],
        size: usize,
        kernel_px: usize,
        resizes: bool,
    ) -> Chunk {
        let spans = |view: &ViewParameters| (Span::whole(view.crop.width, size), Span::whole(view.crop.height, size));
        let vertical_first = |view: &ViewParameters| {
            let (columns, rows) = spans(view);
            resample::vertical_first(columns, rows)
        };
        let columns = views.iter().map(|view| axis(view.crop.left, spans(view).0, view.flip));
        let rows = views.iter().map(|view| axis(view.crop.top, spans(view).1, false));
        let axes: Vec<[f64; AXIS]> = if resizes { columns.chain(rows).collect() } else { Vec::new() };
        let jitters: Vec<Jitter> = views.iter().map_while(|view| view.jitter).collect();
        Chunk {
            views: views.len(),
            taps: axes.iter().map(|axis| axis[7] as usize).max().unwrap_or(0),
            places: self.section(places.iter().map(|&place| place as f64)),
            axes: self.section(axes.into_iter().flatten()),
            horizontal_first: self.list(views, |view| resizes && !vertical_first(view)),
            vertical_first: self.list(views, |view| resizes && vertical_first(view)),
            jittered: jitters.len(),
            before: [0, 1, 2].map(|round| jitters.iter().filter(|jitter| hue_place(jitter) > round).count()),
            after: [0, 1, 2].map(|round| jitters.iter().filter(|jitter| ROUNDS - hue_place(jitter) > round).count()),
            colors: self.section(jitters.iter().flat_map(colors)),
            ops: OPS.iter().enumerate().map(|(place, op)| self.listed(views, place, op, kernel_px)).collect(),
        }
    }
}

/// Where the hue stands among the four operations, from 0.
fn hue_place(jitter: &Jitter) -> usize {
    jitter.order.iter().position(|op| *op == JitterOp::Hue).unwrap_or(0)
}

/// An axis as `weights` reads it: outputs count `first + step * place`; offset and length of the crop; input pixels an
/// output pixel, half-width of the filter and its inverse; taps, at most.
fn axis(offset: usize, span: Span, mirrored: bool) -> [f64; AXIS] {
    let scale = span.input as f64 / span.output as f64;
    let support = scale.max(1.0);
    let taps = ((support * 2.0).ceil() as usize).min(span.input);
    let (first, step) = if mirrored { ((span.output - 1) as f64, -1.0) } else { (0.0, 1.0) };
    [first, step, offset as f64, span.input as f64, scale, support, 1.0 / support, taps as f64]
}

/// A view's colours: rounds before the hue, rounds after it (unused ones are never looked at), steps of hue.
fn colors(jitter: &Jitter) -> [f64; COLORS] {
    let mut numbers = [0.0; COLORS];
    let hue_place = hue_place(jitter);
    for (place, (op, factor)) in jitter.steps().into_iter().enumerate() {
        let round = if place < hue_place { place } else { ROUNDS + place.saturating_sub(hue_place + 1) };
        let of = match op {
            JitterOp::Hue => continue,
            JitterOp::Brightness => [factor, 0.0, 0.0],
            JitterOp::Contrast => [factor, 1.0, 0.0],
            JitterOp::Saturation => [factor, 0.0, 1.0],
        };
        numbers[round * ROUND..][..ROUND].copy_from_slice(&of.map(f64::from));
    }
    numbers[COLORS - 1] = f64::from(hue::steps(jitter.hue));
    numbers
}
