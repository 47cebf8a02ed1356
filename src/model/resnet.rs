//! ResNet trunks as torchvision builds them (He et al., arXiv 1512.03385), plus
//! the paper's 10-layer variant; parameter names and order are torchvision's.

use super::batch_norm::Forked;
use super::layers::{BatchNorm, Builder, Conv2d, Pass};
use crate::config::{Depth, Stem};
use tch::{Kind, Tensor};

/// Blocks per stage and the block's kind.
fn shape(depth: Depth) -> ([usize; 4], bool) {
    match depth {
        Depth::Res10 => ([1, 1, 1, 1], false),
        Depth::Res18 => ([2, 2, 2, 2], false),
        Depth::Res34 => ([3, 4, 6, 3], false),
        Depth::Res50 => ([3, 4, 6, 3], true),
        Depth::Res101 => ([3, 4, 23, 3], true),
        Depth::Res152 => ([3, 8, 36, 3], true),
    }
}

/// Width of the trunk's output: 512, or 2048 with bottleneck blocks.
pub fn feature_dim(depth: Depth) -> i64 {
    if shape(depth).1 { 2048 } else { 512 }
}

/// Layers with weights on the way from image to classes, the classifier counted in, as the names have it.
pub fn layers(depth: Depth) -> u32 {
    let (blocks, bottleneck) = shape(depth);
    blocks.iter().sum::<usize>() as u32 * if bottleneck { 3 } else { 2 } + 2
}

/// The trunk's weights, those of BatchNorm among them, without building it.
pub fn trunk_weights(depth: Depth, stem: Stem) -> i64 {
    let (blocks, bottleneck) = shape(depth);
    // A convolution and the two vectors of its BatchNorm.
    let with_norm = |from: i64, to: i64, side: i64| from * to * side * side + 2 * to;
    let (side, _) = stem_shape(stem);
    let (mut weights, mut input) = (with_norm(3, STEM_PLANES, side), STEM_PLANES);
    for (stage, &count) in blocks.iter().enumerate() {
        for block in 0..count {
            let stride = block_stride(stage, block);
            let plan = convolutions(input, STEM_PLANES << stage, stride, bottleneck);
            let output = plan[plan.len() - 1].1;
            weights += plan.iter().map(|&(from, to, side, _)| with_norm(from, to, side)).sum::<i64>();
            if changes_shape(input, output, stride) {
                weights += with_norm(input, output, 1);
            }
            input = output;
        }
    }
    weights
}

/// Channels behind the stem.
const STEM_PLANES: i64 = 64;

/// (input, output, kernel side, stride) of each convolution of a block; torchvision strides the 3x3 one.
fn convolutions(input: i64, planes: i64, stride: i64, bottleneck: bool) -> Vec<(i64, i64, i64, i64)> {
    if bottleneck {
        vec![(input, planes, 1, 1), (planes, planes, 3, stride), (planes, planes * 4, 1, 1)]
    } else {
        vec![(input, planes, 3, stride), (planes, planes, 3, 1)]
    }
}

/// Whether a block's shortcut needs a convolution of its own.
fn changes_shape(input: i64, output: i64, stride: i64) -> bool {
    stride != 1 || input != output
}

/// The stride of a block: the first of each stage but the first halves the image.
fn block_stride(stage: usize, block: usize) -> i64 {
    if block == 0 && stage > 0 { 2 } else { 1 }
}

/// Kernel side and stride of the first convolution.
fn stem_shape(stem: Stem) -> (i64, i64) {
    match stem {
        Stem::Small => (3, 1),
        Stem::Imagenet => (7, 2),
    }
}

/// Convolutions with their BatchNorms, ReLU between them, and the shortcut around.
#[derive(Debug)]
struct Block {
    layers: Vec<(Conv2d, BatchNorm)>,
    /// Present where the shortcut changes its shape.
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl Block {
    fn new(b: &mut Builder, input: i64, planes: i64, stride: i64, bottleneck: bool) -> Block {
        let plan = convolutions(input, planes, stride, bottleneck);
        let output = plan[plan.len() - 1].1;
        let layers = plan
            .into_iter()
            .enumerate()
            .map(|(i, (from, to, side, stride))| {
                (b.conv(&format!("conv{}", i + 1), from, to, side, stride), b.batch_norm(&format!("bn{}", i + 1), to))
            })
            .collect();
        let downsample = changes_shape(input, output, stride)
            .then(|| b.scope("downsample", |b| (b.conv("0", input, output, 1, stride), b.batch_norm("1", output))));
        Block { layers, downsample }
    }

    fn forward(&self, x: Forked, pass: Pass) -> Forked {
        let Forked { way: mut out, shortcut } = x;
        let (last, inner) = self.layers.split_last().expect("a block has layers");
        for (conv, bn) in inner {
            out = bn.then(&conv.forward(&out, pass), true, pass);
        }
        let out = last.0.forward(&out, pass);
        let shortcut = match &self.downsample {
            Some((conv, bn)) => bn.then(&conv.forward(&shortcut, pass), false, pass),
            None => shortcut,
        };
        last.1.join(&out, &shortcut, pass)
    }
}

/// Stem and four stages, then the spatial mean.
#[derive(Debug)]
pub struct Trunk {
    conv1: Conv2d,
    bn1: BatchNorm,
    max_pool: bool,
    stages: Vec<Vec<Block>>,
}

impl Trunk {
    pub fn new(b: &mut Builder, depth: Depth, stem: Stem) -> Trunk {
        let (blocks, bottleneck) = shape(depth);
        let (side, stride) = stem_shape(stem);
        let conv1 = b.conv("conv1", 3, STEM_PLANES, side, stride);
        let bn1 = b.batch_norm("bn1", STEM_PLANES);
        let mut input = STEM_PLANES;
        let stages = blocks
            .iter()
            .enumerate()
            .map(|(stage, &count)| {
                let planes = STEM_PLANES << stage;
                b.scope(format!("layer{}", stage + 1), |b| {
                    (0..count)
                        .map(|i| {
                            let stride = block_stride(stage, i);
                            let block = b.scope(i.to_string(), |b| Block::new(b, input, planes, stride, bottleneck));
                            input = if bottleneck { planes * 4 } else { planes };
                            block
                        })
                        .collect()
                })
            })
            .collect();
        Trunk { conv1, bn1, max_pool: stem == Stem::Imagenet, stages }
    }

    /// Normalised images `[M, 3, H, W]` in the pass's precision to features `[M, D]` in float32.
    pub fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let mut x = self.bn1.then(&self.conv1.forward(x, pass), true, pass);
        if self.max_pool {
            x = x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        }
        let ends = self.stages.iter().flatten().fold(Forked::of(x), |x, block| block.forward(x, pass));
        ends.way.mean_dim([2i64, 3].as_slice(), false, Kind::Float)
    }
}
