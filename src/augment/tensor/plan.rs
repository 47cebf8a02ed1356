//! The parameters of a batch as one array of numbers: everything that the device is told, in one copy.
//!
//! Made on the host, by any thread. Chunks are consecutive parts of the views sorted by the place of the hue among the
//! colour operations, latest first, views without jitter at the end.

use super::{packed, upload};
use crate::augment::filter::Span;
use crate::augment::recipe::{Jitter, JitterOp, ViewParameters};
use crate::augment::{OP_COUNT, OPS, hue, resample};
use tch::{Device, Kind, Tensor};

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
    /// Views of the batch.
    pub fn views(&self) -> usize {
        self.views
    }

    /// Groups of views that are rendered one after the other; none where a kernel renders all of them.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
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
}

/// The numbers of a plan on the device, f64 `[n]`, and parts of them as tensors.
pub(super) struct Numbers(Tensor);

impl Numbers {
    /// The one copy of a batch.
    pub fn upload(plan: &Plan, device: Device) -> Numbers {
        Numbers(upload(&Tensor::from_slice(&plan.numbers), device))
    }

    /// A section as f64 `[len / width, width]`.
    pub fn table(&self, section: Section, width: usize) -> Tensor {
        self.0.narrow(0, section.at as i64, section.len as i64).view([-1, width as i64])
    }

    /// A section of indices, i64 `[len]`.
    pub fn integers(&self, section: Section) -> Tensor {
        self.0.narrow(0, section.at as i64, section.len as i64).to_kind(Kind::Int64)
    }
}

/// Makes plans for a [`super::TensorRenderer`].
#[derive(Clone, Copy, Debug)]
pub struct Planner {
    pub(super) size_px: usize,
    pub(super) blur_kernel_px: usize,
    pub(super) chunk_bytes: usize,
    /// For the kernel that renders whole views.
    pub(super) packs: bool,
}

impl Planner {
    /// What [`super::TensorRenderer::views`] needs: whole views (V of them) of `width` x `height` images.
    ///
    /// # Panics
    /// If a crop is empty or leaves the image.
    pub fn views(&self, views: &[ViewParameters], width: usize, height: usize) -> Plan {
        for ViewParameters { crop, .. } in views {
            crop.check(width, height);
        }
        self.plan(views, true, self.chunk_views(width, height))
    }

    /// What [`super::TensorRenderer::colors`] needs: the rest of views that are cropped, resized and flipped.
    pub fn colors(&self, views: &[ViewParameters]) -> Plan {
        self.plan(views, false, self.chunk_views(0, 0))
    }

    fn plan(&self, views: &[ViewParameters], resizes: bool, chunk_views: usize) -> Plan {
        let mut plan = Plan { numbers: Vec::new(), chunks: Vec::new(), views: views.len(), descriptions: None };
        if self.packs {
            plan.descriptions = Some(packed::describe(views, self.size_px, self.blur_kernel_px));
            return plan;
        }
        let mut sorted: Vec<usize> = (0..views.len()).collect();
        sorted.sort_by_key(|&place| views[place].jitter.map_or(ROUNDS + 1, |jitter| ROUNDS - hue_place(&jitter)));
        for places in sorted.chunks(chunk_views) {
            let chosen: Vec<&ViewParameters> = places.iter().map(|&place| &views[place]).collect();
            let chunk = self.chunk(&mut plan, places, &chosen, resizes);
            plan.chunks.push(chunk);
        }
        plan
    }

    fn chunk(&self, plan: &mut Plan, places: &[usize], views: &[&ViewParameters], resizes: bool) -> Chunk {
        let size = self.size_px;
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
            places: plan.section(places.iter().map(|&place| place as f64)),
            axes: plan.section(axes.into_iter().flatten()),
            horizontal_first: plan.list(views, |view| resizes && !vertical_first(view)),
            vertical_first: plan.list(views, |view| resizes && vertical_first(view)),
            jittered: jitters.len(),
            before: [0, 1, 2].map(|round| jitters.iter().filter(|jitter| hue_place(jitter) > round).count()),
            after: [0, 1, 2].map(|round| jitters.iter().filter(|jitter| ROUNDS - hue_place(jitter) > round).count()),
            colors: plan.section(jitters.iter().flat_map(colors)),
            ops: (0..OP_COUNT).map(|place| self.listed(plan, views, place)).collect(),
        }
    }

    /// Which of `views` have operation `place`, and what the device is told of each.
    fn listed(&self, plan: &mut Plan, views: &[&ViewParameters], place: usize) -> Listed {
        let (op, kernel_px) = (OPS[place], self.blur_kernel_px);
        let numbers = views.iter().filter_map(|view| view.ops[place]).flat_map(|number| {
            let mut numbers = (op.numbers)(number, kernel_px);
            numbers.resize((op.most_numbers)(kernel_px), 0.0);
            numbers.into_iter().map(f64::from)
        });
        Listed { views: plan.list(views, |view| view.ops[place].is_some()), numbers: plan.section(numbers) }
    }

    /// Views of `width` x `height` images that a chunk holds.
    fn chunk_views(&self, width: usize, height: usize) -> usize {
        let side = self.size_px;
        // float64 while resizing: image, both passes, both matrices, and weights of about four taps ten times over.
        let between = (height * side).max(width * side);
        let taps = 4 + width.max(height).div_ceil(side) * 2;
        let resizing = 8 * (3 * (width * height + between + side * side) + 2 * side * (width.max(height) + 10 * taps));
        // float32 while colouring: three planes four times, single planes 16 times.
        let coloring = 4 * side * side * (3 * 4 + 16);
        (self.chunk_bytes / resizing.max(coloring)).max(1)
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
