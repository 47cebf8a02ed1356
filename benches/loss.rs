//! Loss, its gradient and its statistics, forward and backward. The peer, with boolean masks: scripts/bench/peer.py.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flatnce::config::Objective;
use flatnce::loss;
use std::hint::black_box;
use tch::{Device, Kind, Tensor};

/// Width of the projection.
const DIM: i64 = 128;

fn objectives(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("loss");
    for views in [256, 1024, 4096] {
        tch::manual_seed(0);
        let projected = Tensor::randn([views, DIM], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        group.sample_size(10).throughput(Throughput::Elements(views as u64));
        for objective in [Objective::FlatClr, Objective::SimClr] {
            group.bench_function(BenchmarkId::new(objective.name(), views), |bencher| {
                bencher.iter(|| {
                    let unit = loss::normalise(&projected);
                    let contrast = loss::contrast(&unit, 0.1, objective);
                    loss::backward(&unit, &contrast.gradient);
                    black_box(projected.grad())
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, objectives);
criterion_main!(benches);
