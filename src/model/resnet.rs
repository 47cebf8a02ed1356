//! ResNet trunks as torchvision builds them (He et al., arXiv 1512.03385), plus
//! the paper's 10-layer variant; parameter names and order are torchvision's.

use super::batch_norm::Forked;
use super::layers::{BatchNorm, Builder, Conv2d, Pass};
use crate::config::{Depth, Stem};
use tch::{Kind, Tensor};

/// Blocks of each stage, and whether they are bottlenecks: three convolutions of 1x1, 3x3 and 1x1 in the place of two of
/// 3x3.
pub fn stages(depth: Depth) -> ([usize; 4], bool) {
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
    stage_width(3, stages(depth).1)
}

/// Channels behind a stage, the first of which is 0.
pub fn stage_width(stage: usize, bottleneck: bool) -> i64 {
    (STEM_PLANES << stage) * if bottleneck { 4 } else { 1 }
}

/// Layers with weights on the way from image to classes, the classifier counted in, as the names have it.
pub fn layers(depth: Depth) -> u32 {
    let (blocks, bottleneck) = stages(depth);
    blocks.iter().sum::<usize>() as u32 * if bottleneck { 3 } else { 2 } + 2
}

/// The trunk's weights, those of BatchNorm among them, without building it.
pub fn trunk_weights(depth: Depth, stem: Stem) -> i64 {
    let TrunkPlan { stem, blocks, .. } = TrunkPlan::of(depth, stem);
    let of_blocks = blocks.iter().flat_map(|block| block.way.iter().chain(&block.shortcut));
    // A convolution and the two vectors of its BatchNorm.
    let weights = |layer: &LayerPlan| layer.output * (layer.input * layer.side * layer.side + 2);
    of_blocks.chain([&stem]).map(weights).sum()
}

/// Channels behind the stem.
const STEM_PLANES: i64 = 64;

/// A convolution without bias and the BatchNorm behind it.
#[derive(Clone, Debug)]
pub struct LayerPlan {
    /// The names of the two, as torchvision has them.
    pub conv: String,
    pub norm: String,
    /// Channels.
    pub input: i64,
    pub output: i64,
    /// Of the square kernel. Half of it, rounded down, is the padding with zeros on every side.
    pub side: i64,
    pub stride: i64,
}

/// A block: its layers with ReLU between them, the addition of the shortcut, and ReLU.
#[derive(Clone, Debug)]
pub struct BlockPlan {
    pub name: String,
    pub way: Vec<LayerPlan>,
    /// Present where the shortcut changes its shape.
    pub shortcut: Option<LayerPlan>,
}

/// What a trunk consists of, on the way from images to features: the stem with ReLU, 3x3 max-pooling of stride 2 where
/// there is one, the blocks, and the spatial mean.
#[derive(Clone, Debug)]
pub struct TrunkPlan {
    pub stem: LayerPlan,
    pub max_pool: bool,
    pub blocks: Vec<BlockPlan>,
}

impl TrunkPlan {
    pub fn of(depth: Depth, stem: Stem) -> TrunkPlan {
        let (counts, bottleneck) = stages(depth);
        let (side, stride) = match stem {
            Stem::Small => (3, 1),
            Stem::Imagenet => (7, 2),
        };
        let (conv, norm) = ("conv1".to_owned(), "bn1".to_owned());
        let first = LayerPlan { conv, norm, input: 3, output: STEM_PLANES, side, stride };
        let mut blocks = Vec::new();
        let mut input = STEM_PLANES;
        for (stage, &count) in counts.iter().enumerate() {
            for number in 0..count {
                // The first block of each stage but the first halves the image.
                let stride = if number == 0 && stage > 0 { 2 } else { 1 };
                blocks.push(BlockPlan::of(stage, number, input, stride, bottleneck));
                input = stage_width(stage, bottleneck);
            }
        }
        TrunkPlan { stem: first, max_pool: stem == Stem::Imagenet, blocks }
    }
}

impl BlockPlan {
    fn of(stage: usize, number: usize, input: i64, stride: i64, bottleneck: bool) -> BlockPlan {
        let name = format!("layer{}.{number}", stage + 1);
        let (planes, output) = (STEM_PLANES << stage, stage_width(stage, bottleneck));
        // (input, output, kernel side, stride); torchvision strides the 3x3 convolution.
        let convolutions = if bottleneck {
            vec![(input, planes, 1, 1), (planes, planes, 3, stride), (planes, output, 1, 1)]
        } else {
            vec![(input, planes, 3, stride), (planes, output, 3, 1)]
        };
        let way = (1..).zip(convolutions).map(|(i, (input, output, side, stride))| LayerPlan {
            conv: format!("{name}.conv{i}"),
            norm: format!("{name}.bn{i}"),
            input,
            output,
            side,
            stride,
        });
        let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
        let shortcut = LayerPlan { conv, norm, input, output, side: 1, stride };
        BlockPlan { way: way.collect(), shortcut: (stride != 1 || input != output).then_some(shortcut), name }
    }
}

/// A convolution and its BatchNorm.
type Layer = (Conv2d, BatchNorm);

fn layer(b: &mut Builder, plan: &LayerPlan) -> Layer {
    let &LayerPlan { input, output, side, stride, .. } = plan;
    (b.conv(&plan.conv, input, output, side, stride), b.batch_norm(&plan.norm, output))
}

/// Convolutions with their BatchNorms, ReLU between them, and the shortcut around.
#[derive(Debug)]
struct Block {
    layers: Vec<Layer>,
    /// Present where the shortcut changes its shape.
    downsample: Option<Layer>,
}

impl Block {
    fn new(b: &mut Builder, plan: &BlockPlan) -> Block {
        let layers = plan.way.iter().map(|plan| layer(b, plan)).collect();
        Block { layers, downsample: plan.shortcut.as_ref().map(|plan| layer(b, plan)) }
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
    stem: Layer,
    max_pool: bool,
    blocks: Vec<Block>,
}

impl Trunk {
    pub fn new(b: &mut Builder, depth: Depth, stem: Stem) -> Trunk {
        let TrunkPlan { stem, max_pool, blocks } = TrunkPlan::of(depth, stem);
        Trunk { stem: layer(b, &stem), max_pool, blocks: blocks.iter().map(|plan| Block::new(b, plan)).collect() }
    }

    /// Normalised images `[M, 3, H, W]` in the pass's precision to features `[M, D]` in float32.
    pub fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let (conv, bn) = &self.stem;
        let mut x = bn.then(&conv.forward(x, pass), true, pass);
        if self.max_pool {
            x = x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        }
        let ends = self.blocks.iter().fold(Forked::of(x), |x, block| block.forward(x, pass));
        ends.way.mean_dim([2i64, 3].as_slice(), false, Kind::Float)
    }
}
