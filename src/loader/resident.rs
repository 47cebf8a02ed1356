//! Batches rendered on the device from the data set in its memory.
//!
//! A thread draws the parameters ahead; the order of the epoch goes up once, a batch's parameters in one copy, and images
//! are gathered by index. Nothing is read back, so the device has its work in a row.

use super::placement::Resident;
use super::{Loader, PREFETCH, Rendering, placement};
use crate::augment::{Plan, TensorRenderer, ViewParameters, draw, upload};
use crate::rng::{Purpose, Stream};
use crate::threads;
use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Receiver, bounded};
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
    /// Samples of the order that only need rendering.
    plans: Receiver<(Range<usize>, Plan)>,
}

impl ResidentBatches {
    pub fn start(
        loader: &Loader,
        renderer: &Rc<TensorRenderer>,
        resident: &Rc<Resident>,
        epoch: u64,
        first_batch: usize,
    ) -> Result<ResidentBatches> {
        let Rendering::Views { recipe, .. } = &*loader.rendering else { unreachable!("on_device looked") };
        let packed = placement::packed(&loader.split).expect("on_device looked");
        let (width, height) = (packed.width(), packed.height());
        let order = Arc::new(loader.order(epoch));
        let ranges: Vec<Range<usize>> = (first_batch..loader.own_batches()).map(|n| loader.own_range(n)).collect();
        let (recipe, planner, seed) = (recipe.clone(), renderer.planner(), loader.seed);
        let (sender, plans) = bounded(PREFETCH);
        let order_here = Arc::clone(&order);
        let drawn = move |sample: usize, view: u32| {
            let mut stream = Stream::new(seed, Purpose::View, epoch, sample as u64, view);
            draw(&recipe, &mut stream, width, height)
        };
        let plan = move || {
            for range in ranges {
                let samples = &order_here[range.clone()];
                let views = (0..2).flat_map(|view| samples.iter().map(move |&sample| (sample, view)));
                let views: Vec<ViewParameters> = views.map(|(sample, view)| drawn(sample, view)).collect();
                if sender.send((range, planner.views(&views, width, height))).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("loader-plan".into()).spawn(plan);
        thread.with_context(|| threads::refused("the thread that draws views"))?;
        let indices: Vec<i64> = order.iter().map(|&sample| sample as i64).collect();
        let order_there = upload(&Tensor::from_slice(&indices), renderer.device());
        let (renderer, resident) = (Rc::clone(renderer), Rc::clone(resident));
        Ok(ResidentBatches { renderer, resident, order, order_there, plans })
    }

    /// The next batch's views u8 `[2B, S, S, 3]` on the device, and its samples; `None` after the last one, which is where
    /// `more` says that there is none.
    pub fn next(&mut self, more: bool) -> Result<Option<(Tensor, Vec<usize>)>> {
        if !more {
            return Ok(None);
        }
        let (range, plan) = self.plans.recv().map_err(|_| anyhow!("the loader's thread has died"))?;
        let rows = self.order_there.narrow(0, range.start as i64, range.len() as i64).repeat([2]);
        let images = self.renderer.views(&self.resident.images, &rows, &plan);
        Ok(Some((images, self.order[range].to_vec())))
    }
}
