//! Whatever the order of threads, the same bits; and each barrier is needed for that.

use super::case::{AFTER, After, Case, KINDS, Outcome};
use super::emulation::{Emulation, Gpu};
use super::views;
use std::process::Command;
use tch::{Device, Kind, Tensor};

/// Which barrier of `render_views` [`a_view_without_a_barrier`] leaves out.
const WITHOUT: &str = "FLATNCE_TEST_WITHOUT_BARRIER";

/// Equal bits, NaN included.
fn same(a: &[Tensor], b: &[Tensor]) -> bool {
    let bits = |tensor: &Tensor| tensor.contiguous().view(-1).view_dtype(Kind::Uint8);
    a.iter().zip(b).all(|(a, b)| bits(a) == bits(b))
}

fn copies(outcome: &Outcome) -> Vec<Tensor> {
    outcome.all().into_iter().map(|tensor| tensor.contiguous()).collect()
}

#[test]
fn batch_norm_has_the_same_bits_in_every_order_of_threads() {
    let emulation = Emulation::start();
    for kind in KINDS {
        for after in AFTER {
            let case = Case::new(kind, after, [5, 128, 9, 11]);
            emulation.order(0);
            let first = copies(&case.fused());
            for order in 1..4 {
                emulation.order(order);
                assert!(same(&copies(&case.fused()), &first), "{kind:?} {after:?}, order {order}");
            }
        }
    }
}

#[test]
fn a_gpu_has_the_bits_of_the_emulation() {
    for kind in KINDS {
        for after in AFTER {
            for shape in [[5, 128, 9, 11], [13, 64, 67, 61], [16, 2048, 3, 5]] {
                let case = Case::new(kind, after, shape);
                let there = {
                    let Some(_gpu) = Gpu::start() else { return };
                    copies(&case.fused_on(Device::Cuda(0)))
                };
                let _emulation = Emulation::start();
                assert!(same(&there, &copies(&case.fused())), "{kind:?} {after:?} {shape:?}");
            }
        }
    }
}

#[test]
fn a_missing_barrier_of_batch_norm_shows() {
    let emulation = Emulation::start();
    for kind in [Kind::Float, Kind::BFloat16] {
        // More blocks than threads that sum over them.
        let case = Case::new(kind, After::AddRelu, [7, 64, 23, 29]);
        emulation.order(0);
        let right = copies(&case.fused());
        let format = if kind == Kind::Float { "float32" } else { "bfloat16" };
        let [statistics, weigh] = ["statistics", "weigh_add_relu"].map(|name| format!("{name}_{format}\0"));
        let halvings = if kind == Kind::Float { 4 } else { 5 };
        for (name, barriers) in
            [(&*statistics, halvings), (&*weigh, halvings), ("finish_statistics\0", 11), ("finish_gradients\0", 10)]
        {
            let kernel = std::ffi::CStr::from_bytes_with_nul(name.as_bytes()).unwrap();
            emulation.leave_out(0, kernel, -1);
            case.fused();
            assert_eq!(emulation.barriers(), barriers, "{name}");
            for without in 0..barriers {
                let seen = (0..6).any(|order| {
                    emulation.leave_out(order, kernel, without);
                    !same(&copies(&case.fused()), &right)
                });
                assert!(seen, "nobody misses barrier {without} of {barriers} in {name}");
            }
        }
    }
}

/// Views, and the barriers that a block of them passes.
const VIEWS: [(fn() -> Tensor, i64); 2] = [
    // Two of resampling; 9 of the mean of 256 threads; two of each plane's blur; one before the end.
    (views::everything, 2 + 9 + 2 * 3 + 1),
    // One before the end of each of two views, and one between them.
    (views::several_a_block, 3),
];

/// Whether every order of threads makes the same of views, with or without a barrier.
fn same_in_every_order(emulation: &Emulation, views: fn() -> Tensor, without: i64) -> bool {
    emulation.order(0);
    let right = [views()];
    (0..6).all(|order| {
        emulation.leave_out(order, c"render_views", without);
        same(&[views()], &right)
    })
}

/// A part of the next test, in a process of its own: without a barrier it may run into memory that is not there.
#[test]
#[ignore = "a part of another test"]
fn a_view_without_a_barrier() {
    let asked = std::env::var(WITHOUT).expect("it is set");
    let (which, without) = asked.split_once(' ').expect("two numbers");
    let (views, _) = VIEWS[which.parse::<usize>().expect("a number")];
    let emulation = Emulation::with_shared_bytes(1024);
    assert!(same_in_every_order(&emulation, views, without.parse().expect("a number")));
}

#[test]
fn a_missing_barrier_of_a_view_shows() {
    for (which, (views, barriers)) in VIEWS.into_iter().enumerate() {
        let emulation = Emulation::with_shared_bytes(1024);
        assert!(same_in_every_order(&emulation, views, -1));
        assert_eq!(emulation.barriers(), barriers);
        drop(emulation);
        for without in -1..barriers {
            let mut child = Command::new(std::env::current_exe().expect("this program"));
            child.args(["--exact", "schedules::a_view_without_a_barrier", "--ignored"]);
            let output = child.env(WITHOUT, format!("{which} {without}")).output().expect("it starts");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("running 1 test"), "{said}");
            assert_eq!(output.status.success(), without < 0, "views {which}, barrier {without}: {said}");
        }
    }
}
