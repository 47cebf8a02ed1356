//! Batches rendered on the device from the data set in its memory.
//!
//! A thread draws the parameters ahead; the order of the epoch goes up once, a batch's parameters in one copy, and images
//! are gathered by index. Nothing is read back, so the device has its work in a row.

use super::placement::Resident;
use super::{Loader, PREFETCH, Rendering, Share, placement};
use crate::augment::{Plan, Planner, TensorRenderer, ViewParameters, draw, upload};
use crate::config::Augmentation;
use crate::rng::{Purpose, Stream};
use anyhow::{Result, anyhow};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use tch::Tensor;

/// The batches of an epoch. Dropping it ends the thread.
pub(super) struct ResidentBatches {
    renderer: Rc<TensorRenderer>,
    resident: Rc<Resident>,
    order: Arc<Vec<usize>>,
    /// i64 `[N]` on the device.
    order_there: Tensor,
    plans: Receiver<Planned>,
}

/// A batch that only needs rendering: samples `range` of the order.
struct Planned {
    range: Range<usize>,
    plan: Plan,
}

/// What the planning thread needs.
struct Planning {
    recipe: Augmentation,
    planner: Planner,
    width: usize,
    height: usize,
    order: Arc<Vec<usize>>,
    batch_size: usize,
    share: Share,
    seed: u64,
    epoch: u64,
}

impl ResidentBatches {
    pub fn start(
        loader: &Loader,
        renderer: &Rc<TensorRenderer>,
        resident: &Rc<Resident>,
        epoch: u64,
        first_batch: usize,
    ) -> ResidentBatches {
        let Rendering::Views { recipe, .. } = &*loader.rendering else { unreachable!("on_device looked") };
        let packed = placement::packed(&loader.split).expect("on_device looked");
        let order = Arc::new(loader.order(epoch));
        let indices: Vec<i64> = order.iter().map(|&sample| sample as i64).collect();
        let planning = Planning {
            recipe: recipe.clone(),
            planner: renderer.planner(),
            width: packed.width(),
            height: packed.height(),
            order: Arc::clone(&order),
            batch_size: loader.batch_size,
            share: loader.share,
            seed: loader.seed,
            epoch,
        };
        let (sender, plans) = bounded(PREFETCH);
        let batches = first_batch..loader.share.batches(loader.batches());
        std::thread::Builder::new()
            .name("loader-plan".into())
            .spawn(move || planning.run(batches, &sender))
            .expect("the system grants a thread");
        let order_there = upload(&Tensor::from_slice(&indices), renderer.device());
        ResidentBatches { renderer: Rc::clone(renderer), resident: Rc::clone(resident), order, order_there, plans }
    }

    /// The next batch's views u8 `[2B, S, S, 3]` on the device, and its samples; `None` after the last one, which is where
    /// `more` says that there is none.
    pub fn next(&mut self, more: bool) -> Result<Option<(Tensor, Vec<usize>)>> {
        if !more {
            return Ok(None);
        }
        let Planned { range, plan } = self.plans.recv().map_err(|_| anyhow!("the loader's thread has died"))?;
        let rows = self.order_there.narrow(0, range.start as i64, range.len() as i64).repeat([2]);
        let images = self.renderer.views(&self.resident.images, &rows, &plan);
        Ok(Some((images, self.order[range].to_vec())))
    }
}

impl Planning {
    fn run(&self, batches: Range<usize>, plans: &Sender<Planned>) {
        for batch in batches {
            let range = self.share.of(batch, self.batch_size, self.order.len());
            let views: Vec<ViewParameters> = (0..2)
                .flat_map(|view| self.order[range.clone()].iter().map(move |&sample| self.draw(sample, view)))
                .collect();
            let plan = self.planner.views(&views, self.width, self.height);
            if plans.send(Planned { range, plan }).is_err() {
                return;
            }
        }
    }

    fn draw(&self, sample: usize, view: u32) -> ViewParameters {
        let mut stream = Stream::new(self.seed, Purpose::View, self.epoch, sample as u64, view);
        draw(&self.recipe, &mut stream, self.width, self.height)
    }
}
