//! The sum of all ranks' gradients, in flat buckets: a few large reductions
//! instead of one a parameter.

use super::{Group, Reduction};
use anyhow::Result;
use tch::Tensor;

/// Of one bucket, about: large enough that latency does not count, small enough that packing one and sending
/// another overlap.
pub const BUCKET_BYTES: usize = 25 << 20;

/// Replaces every gradient by its sum over the ranks. The list is the same on all of them.
pub fn reduce_gradients(group: &Group, gradients: &[Tensor]) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let buckets = buckets(gradients);
    let flat: Vec<Tensor> =
        buckets.iter().map(|bucket| Tensor::cat(&bucket.iter().map(flattened).collect::<Vec<_>>(), 0)).collect();
    group.all_reduce(&flat.iter().collect::<Vec<_>>(), Reduction::Sum)?;
    for (bucket, flat) in buckets.iter().zip(&flat) {
        let mut at = 0;
        for gradient in *bucket {
            let count = gradient.numel() as i64;
            let mut walked = walked(gradient);
            let summed = flat.narrow(0, at, count).view_as(&walked.empty_like());
            walked.copy_(&summed);
            at += count;
        }
    }
    Ok(())
}

/// Runs of gradients of one kind, none larger than a bucket unless a single gradient is.
fn buckets(gradients: &[Tensor]) -> Vec<&[Tensor]> {
    let bytes = |t: &Tensor| t.numel() * t.kind().elt_size_in_bytes();
    let mut runs = Vec::new();
    let (mut first, mut filled) = (0, 0);
    for (at, gradient) in gradients.iter().enumerate() {
        let fits =
            at == first || (filled + bytes(gradient) <= BUCKET_BYTES && gradient.kind() == gradients[first].kind());
        if !fits {
            runs.push(&gradients[first..at]);
            (first, filled) = (at, 0);
        }
        filled += bytes(gradient);
    }
    if first < gradients.len() {
        runs.push(&gradients[first..]);
    }
    runs
}

/// The gradient with its dimensions in the order in which convolution weights lie in memory (channels last).
fn walked(gradient: &Tensor) -> Tensor {
    if gradient.dim() == 4 { gradient.permute([0, 2, 3, 1]) } else { gradient.shallow_clone() }
}

fn flattened(gradient: &Tensor) -> Tensor {
    walked(gradient).reshape([-1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn buckets_hold_whole_gradients_in_order() {
        let of = |count: i64| Tensor::zeros([count], (Kind::Float, Device::Cpu));
        let most = (BUCKET_BYTES / 4) as i64;
        let gradients = [of(10), of(most - 10), of(1), of(most + 5), of(3)];
        let sizes: Vec<Vec<i64>> =
            buckets(&gradients).iter().map(|run| run.iter().map(|g| g.size()[0]).collect()).collect();
        assert_eq!(sizes, [vec![10, most - 10], vec![1], vec![most + 5], vec![3]]);
        assert!(buckets(&[]).is_empty());
    }
}
