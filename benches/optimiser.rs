//! One step of each optimiser over the parameters of res18 and res50. The peer, upstream's loop in PyTorch:
//! scripts/bench/peer.py.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flatnce::cli;
use flatnce::config::Job;
use flatnce::model::{Encoder, HeadKind};
use flatnce::optim;
use tch::Device;

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("optimiser");
    for model in ["res18", "res50"] {
        for optimiser in ["lars", "sgd", "adam"] {
            let (model_flag, optimiser_flag) = (format!("--model={model}"), format!("--optimizer={optimiser}"));
            let line = ["flatnce", "--dataset-name=cifar10", "--device=cpu", &model_flag, &optimiser_flag];
            let typed = cli::parse(line).expect("these are flags");
            let resolved = cli::resolve(&typed, &cli::resolve::read_saved).expect("these flags go together");
            let Job::Pretrain(run) = resolved.config.job else { unreachable!("these flags pre-train") };
            let encoder = Encoder::new(&run.model, HeadKind::Projection, Device::Cpu, 0);
            let parameters = encoder.parameters();
            parameters.iter().for_each(|p| (&p.tensor * &p.tensor).sum(tch::Kind::Float).backward());
            let count: i64 = parameters.iter().map(|p| p.tensor.numel() as i64).sum();
            let mut algorithm = optim::build(&run.optimizer, parameters).expect("an optimiser of pre-training");
            group.sample_size(10).throughput(Throughput::Elements(count as u64));
            // So small a rate that the weights stay what they are.
            group.bench_function(BenchmarkId::new(optimiser, model), |bencher| {
                bencher.iter(|| algorithm.step(&1e-9.into(), None))
            });
        }
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
