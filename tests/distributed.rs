//! What several ranks compute is what one process computes. The ranks are threads here, each with its own group over
//! the loopback interface: collectives, store and autograd are those of separate processes.

#[path = "support/ranks.rs"]
mod ranks;

use flatnce::config::{DatasetName, Depth, HeadConfig, HeadMode, ModelConfig, Normalisation, Objective, Stem};
use flatnce::distributed::{self, Group, Reduction};
use flatnce::loss::{Anchors, Contrast, Loss, Pairs, contrast};
use flatnce::model::{Encoder, HeadKind, Pass};
use flatnce::optim::{Optimizer, Rate, StateEntry, Update};
use flatnce::rng::{Purpose, Stream};
use flatnce::state::{DataMarks, Parameter, StateDict};
use flatnce::train::pretrain::step;
use flatnce::train::ranks::{Ranks, check_job};
use ranks::{free_port, place};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

const TIMEOUT: Duration = Duration::from_secs(60);

/// c10d records every collective of a process in one table, without a lock where a group is first met. A program has one
/// group and this has several at once, so the record is turned off: before `main`, while there is one thread.
#[used]
#[unsafe(link_section = ".init_array")]
static NO_RECORD: extern "C" fn() = {
    extern "C" fn turn_off() {
        // SAFETY: two C strings that live for ever; nothing else runs yet.
        unsafe { libc::setenv(c"TORCH_FR_BUFFER_SIZE".as_ptr(), c"0".as_ptr(), 1) };
    }
    turn_off
};

/// Runs `work` on so many ranks at once and gives back what each made, in their order. One rank has no group.
fn on_ranks<T: Send>(count: usize, work: impl Fn(&Ranks) -> T + Sync) -> Vec<T> {
    if count == 1 {
        return vec![work(&Ranks::alone())];
    }
    let port = free_port();
    let hello = distributed::hello(&serde_json::json!({}));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|rank| {
                let (work, hello) = (&work, &hello);
                scope.spawn(move || {
                    let place = place(rank, count, port);
                    distributed::together(Some(&place), hello, false, TIMEOUT, |group| Ok(work(&Ranks::from(group))))
                        .expect("the ranks work together")
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
    })
}

fn group(ranks: &Ranks) -> &Group {
    ranks.group().expect("there are others")
}

#[test]
fn collectives_do_what_they_say() {
    for count in [2, 3, 4] {
        on_ranks(count, |ranks| {
            let (group, rank) = (group(ranks), ranks.rank() as i64);
            let (own, more) = (Tensor::from_slice(&[rank as f32, 1.0]), Tensor::from_slice(&[10i64 * rank]));
            group.all_reduce(&[&own, &more], Reduction::Sum).unwrap();
            let sum = (0..count as i64).sum::<i64>();
            assert_eq!(Vec::<f32>::try_from(&own).unwrap(), [sum as f32, count as f32]);
            assert_eq!(more.int64_value(&[0]), 10 * sum);
            let largest = Tensor::from_slice(&[rank as f64]);
            group.all_reduce(&[&largest], Reduction::Max).unwrap();
            assert_eq!(largest.double_value(&[0]), (count - 1) as f64);
            let all = group.all_gather(&Tensor::full([2, 3], rank, (Kind::Float, Device::Cpu))).unwrap();
            assert_eq!(all.size(), [2 * count as i64, 3]);
            assert_eq!(all.double_value(&[3, 0]), 1.0);
            let given = Tensor::full([4], rank + 7, (Kind::Float, Device::Cpu));
            group.broadcast(&given).unwrap();
            assert_eq!(given.double_value(&[3]), 7.0);
            assert!(group.any(rank == 1).unwrap() && !group.any(false).unwrap());
            assert_eq!(group.text("name", || Ok(format!("from rank {rank}"))).unwrap(), "from rank 0");
            group.barrier().unwrap();
            let traffic = group.traffic();
            assert!(traffic.calls >= 7 && traffic.bytes >= 16 + 8 + 24, "{traffic:?}");
        });
    }
}

#[test]
fn a_batch_is_gathered_in_the_order_of_one_process() {
    // Rows of image i: 10 i for its first view, 10 i + 1 for its second.
    for count in [2, 3] {
        on_ranks(count, |ranks| {
            let whole = Tensor::from_slice(&[0i64, 10, 20, 30, 40, 50, 1, 11, 21, 31, 41, 51]).view([12, 1]);
            let (images, first) = (6 / count as i64, 6 / count as i64 * ranks.rank() as i64);
            let own = whole.view([2, 6, 1]).narrow(1, first, images).reshape([-1, 1]);
            assert!(ranks.gather_views(&own).unwrap().equal(&whole));
        });
    }
}

fn normal(seed: u64, shape: &[i64], scale: f64, shift: f64) -> Tensor {
    let mut stream = Stream::new(seed, Purpose::View, 0, 0, 0);
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f64> = (0..count).map(|_| stream.normal_pair().0 * scale + shift).collect();
    Tensor::from_slice(&values).view(shape)
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    (&a - &b).norm().double_value(&[]) / b.norm().double_value(&[]).max(1e-300)
}

/// Output, gradients of x, weight and bias, running mean and variance.
fn normalised(x: &Tensor, pull: &Tensor, group: Option<&Group>) -> Vec<Tensor> {
    let channels = x.size()[1];
    let x = x.copy().set_requires_grad(true);
    let weight = normal(5, &[channels], 0.5, 1.0).set_requires_grad(true);
    let bias = normal(6, &[channels], 0.5, 0.0).set_requires_grad(true);
    let (mean, var) = (normal(7, &[channels], 1.0, 0.0), normal(8, &[channels], 0.1, 1.0));
    let y = match group {
        Some(group) => group.batch_norm(&x, [&weight, &bias, &mean, &var], 0.1, 1e-5),
        None => x.batch_norm(Some(&weight), Some(&bias), Some(&mean), Some(&var), true, 0.1, 1e-5, false),
    };
    (&y.relu() * pull).sum(Kind::Double).backward();
    vec![y.detach(), x.grad(), weight.grad(), bias.grad(), mean, var]
}

#[test]
fn batch_norm_over_the_ranks_is_that_of_one_process() {
    // The last one's mean is far from 0 beside its spread, where sums of squares would cancel.
    for (shape, shift) in [(&[12, 5, 3, 2][..], 0.3), (&[12, 7][..], -0.2), (&[12, 3, 4, 4][..], 1000.0)] {
        let inputs = || (normal(1, shape, 2.0, shift), normal(2, shape, 1.0, 0.1));
        let (x, pull) = inputs();
        let whole = normalised(&x, &pull, None);
        for count in [2, 3, 4] {
            let rows = 12 / count as i64;
            let parts = on_ranks(count, |ranks| {
                let (x, pull) = inputs();
                let own = |t: &Tensor| t.narrow(0, ranks.rank() as i64 * rows, rows);
                normalised(&own(&x), &own(&pull), ranks.group())
            });
            let joined = |at: usize| Tensor::cat(&parts.iter().map(|part| &part[at]).collect::<Vec<_>>(), 0);
            let summed = |at: usize| parts.iter().map(|part| part[at].shallow_clone()).reduce(|a, b| a + b).unwrap();
            for (what, found, expected) in [
                ("output", joined(0), &whole[0]),
                ("gradient of x", joined(1), &whole[1]),
                ("gradient of weight", summed(2), &whole[2]),
                ("gradient of bias", summed(3), &whole[3]),
            ] {
                let apart = distance(&found, expected);
                assert!(apart < 1e-9, "{shape:?} on {count} ranks: {what} is {apart:e} apart");
            }
            for part in &parts {
                assert!(distance(&part[4], &whole[4]) < 1e-12 && distance(&part[5], &whole[5]) < 1e-9);
            }
        }
    }
}

/// An optimiser that leaves everything as it is, so that a step's gradients can be looked at.
struct Idle;

impl Optimizer for Idle {
    fn step(&mut self, _: &Rate, _: Option<&Tensor>) {}

    fn state(&self) -> Vec<StateEntry> {
        Vec::new()
    }

    fn load(&mut self, _: &dyn Fn(usize, &str) -> Option<Tensor>) -> anyhow::Result<()> {
        Ok(())
    }
}

const IMAGES: i64 = 12;

/// Loss, top-1, NESS of every anchor, gradients, and running statistics after one step of this rank.
struct Seen {
    loss: f64,
    top1: f64,
    ness: Tensor,
    gradients: Vec<(String, Tensor)>,
    running: Vec<Tensor>,
}

/// In `Kind::Double` the trunk computes in double precision: one ReLU whose input is within rounding of 0 would
/// otherwise decide how far two runs are apart.
fn one_step(ranks: &Ranks, seed: u64, objective: Objective, compute: Kind, sync_bn: bool) -> Seen {
    let model = ModelConfig {
        depth: Depth::Res10,
        stem: Stem::Small,
        normalisation: Normalisation::of(DatasetName::Cifar10),
        head: HeadConfig { mode: HeadMode::Nonlinear, layers: 2, out_dim: 16 },
    };
    let encoder = Encoder::new(&model, HeadKind::Projection, Device::Cpu, seed);
    let parameters = encoder.parameters();
    if compute == Kind::Double {
        let trunk = |name: &str| !name.starts_with("fc.") && !name.ends_with("num_batches_tracked");
        let buffers: Vec<(String, Tensor)> =
            encoder.state_dict().iter().map(|(name, t)| (name.to_owned(), t.shallow_clone())).collect();
        for (name, tensor) in parameters.iter().map(|p| (p.name.clone(), p.tensor.shallow_clone())).chain(buffers) {
            if trunk(&name) {
                let mut tensor = tensor;
                tensor.set_data(&tensor.to_kind(Kind::Double));
            }
        }
    }
    let mut stream = Stream::new(seed, Purpose::View, 1, 0, 0);
    let bytes: Vec<u8> = (0..2 * IMAGES * 16 * 16 * 3).map(|_| stream.below(256) as u8).collect();
    let batch = Tensor::from_slice(&bytes).view([2, IMAGES, 16, 16, 3]);
    let own = IMAGES / ranks.count() as i64;
    let batch = batch.narrow(1, own * ranks.rank() as i64, own).reshape([2 * own, 16, 16, 3]);
    let mut idle = Idle;
    let update = Update::begin(&mut idle, &parameters, None);
    let views = step::forward(&encoder, &batch, ranks.pass(Pass::train(compute), sync_bn), 1);
    let mut loss = objective.loss(16, Device::Cpu);
    let (contrast, _) = ranks.contrast(loss.as_mut(), &views.unit, 0.1).expect("a contrast");
    views.backward(&update.scaled(&contrast.gradient));
    ranks.sum_gradients(&parameters).expect("sums");
    update.finish(&0.1.into());
    let gradients = parameters.iter().map(|Parameter { name, tensor, .. }| (name.clone(), tensor.grad().copy()));
    let running = encoder.state_dict();
    Seen {
        loss: contrast.value().double_value(&[]),
        top1: contrast.anchors.top(1).double_value(&[]),
        ness: contrast.anchors.ness.copy(),
        gradients: gradients.collect(),
        running: running.iter().filter(|(name, _)| name.contains("running")).map(|(_, t)| t.copy()).collect(),
    }
}

/// The largest distance of a gradient, and whether everything else agrees to `close`.
fn compare(seen: &Seen, whole: &Seen, close: f64) -> f64 {
    assert!((seen.loss - whole.loss).abs() <= close, "losses {} and {}", seen.loss, whole.loss);
    assert!(distance(&seen.ness, &whole.ness) <= 10.0 * close);
    assert!((seen.top1 - whole.top1).abs() < 0.05);
    for (a, b) in seen.running.iter().zip(&whole.running) {
        assert!(distance(a, b) <= close, "running statistics");
    }
    let all = |seen: &Seen| {
        Tensor::cat(&seen.gradients.iter().map(|(_, g)| g.to_kind(Kind::Double).reshape([-1])).collect::<Vec<_>>(), 0)
    };
    let mut largest = distance(&all(seen), &all(whole));
    for ((name, a), (_, b)) in seen.gradients.iter().zip(&whole.gradients) {
        // A gradient that is 0 but for rounding (a bias before BatchNorm) has no direction.
        if b.norm().double_value(&[]) > 1e-6 {
            let apart = distance(a, b);
            assert!(apart <= 10.0 * close, "{name} is {apart:e} apart");
            largest = largest.max(apart);
        }
    }
    largest
}

#[test]
fn one_step_on_any_number_of_ranks_is_that_of_one_process() {
    for (seed, objective) in [(1, Objective::FlatClr), (2, Objective::SimClr), (3, Objective::FlatClr)] {
        let whole = one_step(&Ranks::alone(), seed, objective, Kind::Double, true);
        for count in [1, 2, 3, 4] {
            let parts = on_ranks(count, |ranks| one_step(ranks, seed, objective, Kind::Double, true));
            for part in &parts {
                let apart = compare(part, &whole, 1e-5);
                assert!(apart <= 1e-5, "seed {seed} on {count} ranks: gradients are {apart:e} apart");
            }
            // And every rank has the same bits, so that their weights never part.
            for part in &parts[1..] {
                for ((name, a), (_, b)) in part.gradients.iter().zip(&parts[0].gradients) {
                    assert!(a.equal(b), "{name} differs between ranks");
                }
            }
        }
    }
}

/// Pulls by how far an anchor's v is above the mean of the batch before.
#[derive(Debug)]
struct AboveMean(Tensor);

impl AboveMean {
    fn new() -> AboveMean {
        AboveMean(Tensor::zeros([], (Kind::Float, Device::Cpu)))
    }
}

impl Loss for AboveMean {
    fn contrast(&self, pairs: &Pairs) -> Contrast {
        pairs.contrast(|anchors| (&anchors.log_xi - &self.0).sigmoid())
    }

    fn update(&mut self, _: &Tensor, anchors: &Anchors) {
        self.0.copy_(&anchors.log_xi.mean(Kind::Float));
    }

    fn state(&self) -> StateDict {
        let mut state = StateDict::new();
        state.push("mean", self.0.shallow_clone());
        state
    }
}

#[test]
fn an_objective_that_keeps_state_keeps_the_same_on_every_rank() {
    let features = |step: u64| flatnce::loss::normalise(&normal(step, &[2 * IMAGES, 5], 1.0, 0.2));
    let train = |ranks: &Ranks| {
        let mut loss = AboveMean::new();
        let own = IMAGES / ranks.count() as i64;
        let rows =
            |step| features(step).view([2, IMAGES, 5]).narrow(1, own * ranks.rank() as i64, own).reshape([-1, 5]);
        let gradient = |step| ranks.contrast(&mut loss, &rows(step), 0.2).expect("a contrast").0.gradient;
        let gradients: Vec<Tensor> = (1..4).map(gradient).collect();
        (gradients.iter().map(|own| ranks.gather_views(own).expect("gathers")).collect::<Vec<_>>(), loss.0.copy())
    };
    let (whole, mean) = train(&Ranks::alone());
    assert!(mean.double_value(&[]).abs() > 0.1, "the state moves");
    for (gradients, other) in on_ranks(2, train) {
        assert!(distance(&other, &mean) < 1e-6);
        assert!(gradients.iter().zip(&whole).all(|(part, whole)| distance(part, whole) < 1e-5));
    }
    let fresh = contrast(&features(3), 0.2, Objective::SimClr).gradient;
    assert!(distance(&whole[2], &fresh) > 1e-3, "the state matters");
}

#[test]
fn lower_precisions_agree_to_their_rounding() {
    for (compute, close) in [(Kind::Float, 2e-3), (Kind::BFloat16, 0.2)] {
        let whole = one_step(&Ranks::alone(), 4, Objective::FlatClr, compute, true);
        for part in on_ranks(2, |ranks| one_step(ranks, 4, Objective::FlatClr, compute, true)) {
            compare(&part, &whole, close);
        }
    }
}

#[test]
fn statistics_of_own_images_alone_are_another_training() {
    let whole = one_step(&Ranks::alone(), 5, Objective::FlatClr, Kind::Double, false);
    let parts = on_ranks(2, |ranks| one_step(ranks, 5, Objective::FlatClr, Kind::Double, false));
    assert!((parts[0].loss - whole.loss).abs() > 1e-4, "the comparison above would notice nothing");
    assert!((parts[0].loss - parts[1].loss).abs() < 1e-6, "both report the loss of the whole batch");
}

#[test]
fn the_optimiser_sees_no_trace_of_a_lost_rank() {
    let port = free_port();
    let hello = distributed::hello(&serde_json::json!({}));
    let (gone, waiting) = mpsc::channel();
    std::thread::scope(|scope| {
        let (hello, port) = (&hello, port);
        scope.spawn(move || {
            let group = Group::join(&place(1, 2, port), hello, false, TIMEOUT).unwrap();
            group.barrier().unwrap();
            drop(group);
            gone.send(()).unwrap();
        });
        scope.spawn(move || {
            let group = Rc::new(Group::join(&place(0, 2, port), hello, false, Duration::from_secs(5)).unwrap());
            group.barrier().unwrap();
            waiting.recv_timeout(TIMEOUT).expect("the other rank leaves");
            let ranks = Ranks::from(Some(Rc::clone(&group)));
            // BatchNorm cannot return the fault; the step must.
            let x = normal(1, &[4, 3], 1.0, 0.0);
            let (one, zero) = (normal(2, &[3], 1.0, 0.0), normal(3, &[3], 1.0, 0.0));
            let y = group.batch_norm(&x, [&one, &zero, &zero.copy(), &one.copy()], 0.1, 1e-5);
            assert_eq!(y.size(), [4, 3]);
            let error = group.check().unwrap_err().to_string();
            assert!(error.contains("BatchNorm's exchange with the other ranks failed"), "{error}");
            assert!(ranks.sum_gradients(&[]).is_err());
        });
    });
}

#[test]
fn ranks_that_were_started_differently_do_not_begin() {
    let port = free_port();
    let ours = serde_json::json!({"job": {"pretrain": {"temperature": 0.1, "data": {"root": "/a"}}}, "workers": 2});
    let theirs = serde_json::json!({"job": {"pretrain": {"temperature": 0.2, "data": {"root": "/b"}}}, "workers": 9});
    let mut older = distributed::hello(&ours);
    older["version"] = "0.0.1".into();
    for (hello, culprit) in [
        (distributed::hello(&theirs), "settings.job.pretrain.temperature 0.2 instead of 0.1"),
        (older, "version \"0.0.1\" instead of"),
    ] {
        let port = if culprit.starts_with("version") { free_port() } else { port };
        let errors: Vec<String> = std::thread::scope(|scope| {
            let other =
                scope.spawn(|| Group::join(&place(1, 2, port), &hello, false, TIMEOUT).unwrap_err().to_string());
            let ours =
                Group::join(&place(0, 2, port), &distributed::hello(&ours), false, TIMEOUT).unwrap_err().to_string();
            vec![ours, other.join().unwrap()]
        });
        for error in errors {
            assert!(error.starts_with("rank 1 was started differently") && error.contains(culprit), "{error}");
            assert!(!error.contains("root") && !error.contains("workers"), "{error}");
        }
    }
}

#[test]
fn who_does_not_come_is_named() {
    let port = free_port();
    let hello = distributed::hello(&serde_json::json!({}));
    let short = Duration::from_secs(2);
    let errors: Vec<String> = std::thread::scope(|scope| {
        let ranks = [0, 2].map(|rank| {
            let hello = &hello;
            scope.spawn(move || Group::join(&place(rank, 4, port), hello, false, short).unwrap_err().to_string())
        });
        ranks.map(|thread| thread.join().unwrap()).to_vec()
    });
    for error in errors {
        assert!(error.starts_with("rank 1, 3 of 4 did not come within 2 s"), "{error}");
    }
    let nobody = format!("{:#}", Group::join(&place(1, 2, free_port()), &hello, false, short).unwrap_err());
    assert!(nobody.contains("was not reached within 2 s") && nobody.contains("MASTER_ADDR"), "{nobody}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Group::join(&place(0, 2, port), &hello, false, short).unwrap_err().to_string();
    assert_eq!(error, format!("port {port} of 127.0.0.1 is in use by another program; choose another MASTER_PORT"));
}

/// What listens at MASTER_PORT is not the store: something that never says a word, a web server, something that hangs up,
/// and a store that is met and then stands still.
#[test]
fn whoever_answers_instead_of_the_store_is_told_within_the_time_out() {
    fn serve(answer: impl Fn(TcpStream) + Send + Clone + 'static) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let answer = answer.clone();
                std::thread::spawn(move || answer(connection));
            }
        });
        port
    }
    let rest = |mut connection: TcpStream| {
        let _ = std::io::copy(&mut connection, &mut std::io::sink());
    };
    let web = |mut connection: TcpStream| {
        let _ = connection.read(&mut [0; 64]);
        let _ = connection.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
    };
    let frozen = move |mut connection: TcpStream| {
        let mut words = [0; 10];
        if connection.read_exact(&mut words).is_ok() && connection.write_all(&words[6..]).is_ok() {
            rest(connection);
        }
    };
    let cases = [
        (serve(rest), "does not answer", 4),
        (serve(web), "is another program and no store; choose another MASTER_PORT", 1),
        (serve(drop), "hangs up without an answer", 4),
        (serve(frozen), "rank 0 has gone, or said nothing within 1 s", 12),
    ];
    std::thread::scope(|scope| {
        for (port, wanted, seconds) in cases {
            scope.spawn(move || {
                let (hello, begun) = (distributed::hello(&serde_json::json!({})), Instant::now());
                let joined = Group::join(&place(1, 2, port), &hello, false, Duration::from_secs(1));
                let error = format!("{:#}", joined.unwrap_err());
                assert!(error.contains(wanted), "{error}");
                assert!(wanted.contains("rank 0") || error.contains(&format!("127.0.0.1:{port}")), "{error}");
                assert!(begun.elapsed().as_secs() <= seconds, "{:?}: {error}", begun.elapsed());
            });
        }
    });
}

#[test]
fn ranks_that_read_different_files_do_not_begin() {
    on_ranks(3, |ranks| {
        ranks.check_equal("images", 48).unwrap();
        let marks = DataMarks { images: 48, names: 1, sizes: 2, pixels: 3, labels: 4 };
        ranks.check_data(&marks).unwrap();
        let other = DataMarks { sizes: 2 + u32::from(ranks.rank() == 1), ..marks };
        let error = ranks.check_data(&other).unwrap_err().to_string();
        assert!(error.contains("different images: their sizes are not the same"), "{error}");
        let error = ranks.check_equal("steps trained", 7 + u64::from(ranks.rank() == 2)).unwrap_err().to_string();
        assert!(error.contains("one has 7 steps trained, one 8"), "{error}");
    });
}

#[test]
fn a_batch_that_cannot_be_divided_is_refused() {
    let job = |batch: &str| {
        let line = ["flatnce", "--dataset-name=cifar10", "--device=cpu", "--batch-size", batch];
        flatnce::cli::resolve(&flatnce::cli::parse(line).unwrap(), &flatnce::cli::resolve::read_saved)
            .unwrap()
            .config
            .job
    };
    let error = check_job(&job("64"), 3).unwrap_err().to_string();
    assert!(error.contains("--batch-size 64") && error.contains("use 63 or 66"), "{error}");
    assert!(check_job(&job("66"), 3).is_ok() && check_job(&job("64"), 1).is_ok());
}
