//! An encoder as an ONNX model: 8-bit images in, features out, for onnxruntime and all that reads ONNX.
//!
//! Whatever has to happen to the pixels is inside: the division by 255 and the normalisation. The operations are those
//! of the network in evaluation mode, one by one and under torchvision's names; runtimes join convolutions and
//! BatchNorms themselves. Batch, height and width are free.
//!
//! Field numbers are those of ONNX's `onnx.proto`.

use crate::checkpoint::from_tensor;
use crate::config::{Depth, ModelConfig, Normalisation, Stem};
use crate::model::{BatchNorm, LayerPlan, TrunkPlan, feature_dim};
use crate::protobuf::Message;
use crate::state::StateDict;
use anyhow::{Context, Result};
use tch::Tensor;

/// Operators of 2022 and the format's version that goes with them; every later runtime reads them.
const OPERATORS: u64 = 17;
const FORMAT: u64 = 8;

/// Names of what goes in and what comes out.
const IMAGES: &str = "images";
const FEATURES: &str = "features";

/// Types of elements (`TensorProto.DataType`).
const FLOAT: u64 = 1;
const UINT8: u64 = 2;

/// The model as a file holds it, with properties of names and values. `trunk` has the tensors of the network that `model`
/// describes.
///
/// # Errors
/// A tensor that is missing.
pub fn model(
    model: &ModelConfig,
    trunk: &StateDict,
    properties: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<Vec<u8>> {
    let constants = constants(model.normalisation);
    let nodes = nodes(model.depth, model.stem);
    let mut message = Message::default();
    message.varint(1, FORMAT);
    message.text(2, "flatnce");
    message.text(3, env!("CARGO_PKG_VERSION"));
    let mut written = Ok(());
    message.message(7, |graph| {
        nodes.iter().for_each(|node| graph.message(1, |message| node.write(message)));
        graph.text(2, model.depth.name());
        let weights = nodes.iter().flat_map(Node::weights);
        written = weights.into_iter().try_for_each(|name| {
            let tensor =
                constants.get(name).or_else(|| trunk.get(name)).with_context(|| format!("it has no {name}"))?;
            initializer(graph, name, tensor)
        });
        let images = [Extent::Any("batch"), Extent::Any("height"), Extent::Any("width"), Extent::Of(3)];
        graph.message(11, |input| value(input, IMAGES, UINT8, &images));
        let features = [Extent::Any("batch"), Extent::Of(feature_dim(model.depth) as u64)];
        graph.message(12, |output| value(output, FEATURES, FLOAT, &features));
    });
    written?;
    message.message(8, |operators| operators.varint(2, OPERATORS));
    for (key, text) in properties {
        message.message(14, |property| {
            property.text(1, key);
            property.text(2, &text);
        });
    }
    Ok(message.into_bytes())
}

/// What goes in and what comes out, in the words of the model's properties.
pub fn interface(depth: Depth) -> [(&'static str, String); 2] {
    [
        ("input", format!("{IMAGES}: uint8 [batch, height, width, 3], RGB from 0 to 255; the model normalises")),
        ("output", format!("{FEATURES}: float32 [batch, {}]", feature_dim(depth))),
    ]
}

/// Python that opens the model at `path`, a literal, and gives it images of so many pixels; a statement each.
pub fn recipe(path: &str, depth: Depth, size_px: u32) -> Vec<String> {
    vec![
        "import numpy".to_owned(),
        "import onnxruntime".to_owned(),
        format!("session = onnxruntime.InferenceSession({path}, providers=[\"CPUExecutionProvider\"])"),
        format!(
            "images = numpy.zeros((1, {size_px}, {size_px}, 3), numpy.uint8)  # RGB from 0 to 255: the model normalises"
        ),
        format!(
            "features = session.run([\"{FEATURES}\"], {{\"{IMAGES}\": images}})[0]  # [1, {}] float32",
            feature_dim(depth)
        ),
    ]
}

/// What 255, mean and standard deviation are called.
const WHITE: &str = "normalize.white";
const MEAN: &str = "normalize.mean";
const STD: &str = "normalize.std";

/// The numbers that stand in the graph and are no weights.
fn constants(Normalisation { mean, std }: Normalisation) -> StateDict {
    let mut constants = StateDict::new();
    constants.push(WHITE, Tensor::from(255f32));
    constants.push(MEAN, Tensor::from_slice(&mean));
    constants.push(STD, Tensor::from_slice(&std));
    constants
}

enum Attribute {
    Number(u64),
    Numbers(Vec<u64>),
    Real(f32),
}

/// An operation. Its output has its name.
struct Node {
    operator: &'static str,
    name: String,
    /// What it computes with: outputs of other nodes, or the model's input.
    inputs: Vec<String>,
    /// Then these of the trunk's tensors or of the constants.
    weights: Vec<String>,
    attributes: Vec<(&'static str, Attribute)>,
}

impl Node {
    fn weights(&self) -> impl Iterator<Item = &str> {
        self.weights.iter().map(String::as_str)
    }

    fn write(&self, message: &mut Message) {
        self.inputs.iter().chain(&self.weights).for_each(|name| message.text(1, name));
        message.text(2, &self.name);
        message.text(3, &self.name);
        message.text(4, self.operator);
        for (name, value) in &self.attributes {
            message.message(5, |attribute| {
                attribute.text(1, name);
                // The value, and (`AttributeProto.AttributeType`) of which type it is.
                match value {
                    Attribute::Real(value) => {
                        attribute.float(2, *value);
                        attribute.varint(20, 1);
                    }
                    Attribute::Number(value) => {
                        attribute.varint(3, *value);
                        attribute.varint(20, 2);
                    }
                    Attribute::Numbers(values) => {
                        values.iter().for_each(|value| attribute.varint(8, *value));
                        attribute.varint(20, 7);
                    }
                }
            });
        }
    }
}

/// Nodes in the order of their execution.
struct Nodes(Vec<Node>);

impl Nodes {
    /// Adds a node and gives the name of its output.
    fn push(
        &mut self,
        operator: &'static str,
        name: impl Into<String>,
        inputs: &[&str],
        weights: &[&str],
        attributes: Vec<(&'static str, Attribute)>,
    ) -> String {
        let [inputs, weights] = [inputs, weights].map(|names| names.iter().copied().map(str::to_owned).collect());
        let name = name.into();
        self.0.push(Node { operator, name: name.clone(), inputs, weights, attributes });
        name
    }

    /// A convolution and its BatchNorm behind `x`.
    fn layer(&mut self, x: &str, layer: &LayerPlan) -> String {
        let LayerPlan { conv, norm, side, stride, .. } = layer;
        let (side, stride) = (*side as u64, *stride as u64);
        let weight = format!("{conv}.weight");
        let attributes = window(side, stride);
        let x = self.push("Conv", conv, &[x], &[&weight], attributes);
        let weights = ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{norm}.{part}"));
        let epsilon = vec![("epsilon", Attribute::Real(BatchNorm::EPSILON as f32))];
        self.push("BatchNormalization", norm, &[&x], &weights.each_ref().map(String::as_str), epsilon)
    }

    fn relu(&mut self, x: &str, name: impl Into<String>) -> String {
        self.push("Relu", name, &[x], &[], Vec::new())
    }
}

/// A square window with half of it around the image.
fn window(side: u64, stride: u64) -> Vec<(&'static str, Attribute)> {
    vec![
        ("kernel_shape", Attribute::Numbers(vec![side; 2])),
        ("pads", Attribute::Numbers(vec![side / 2; 4])),
        ("strides", Attribute::Numbers(vec![stride; 2])),
    ]
}

/// From images to features.
fn nodes(depth: Depth, stem: Stem) -> Vec<Node> {
    let TrunkPlan { stem, max_pool, blocks } = TrunkPlan::of(depth, stem);
    let mut nodes = Nodes(Vec::new());
    let mut x = nodes.push("Cast", "images.float", &[IMAGES], &[], vec![("to", Attribute::Number(FLOAT))]);
    for (operator, name, weight) in
        [("Div", "images.scaled", WHITE), ("Sub", "images.centred", MEAN), ("Div", "images.normalized", STD)]
    {
        x = nodes.push(operator, name, &[&x], &[weight], Vec::new());
    }
    let channels_first = vec![("perm", Attribute::Numbers(vec![0, 3, 1, 2]))];
    x = nodes.push("Transpose", "images.channels_first", &[&x], &[], channels_first);
    x = nodes.layer(&x, &stem);
    x = nodes.relu(&x, "relu");
    if max_pool {
        x = nodes.push("MaxPool", "maxpool", &[&x], &[], window(3, 2));
    }
    for block in &blocks {
        let mut way = x.clone();
        for (number, layer) in (1..).zip(&block.way) {
            way = nodes.layer(&way, layer);
            if number < block.way.len() {
                way = nodes.relu(&way, format!("{}.relu{number}", block.name));
            }
        }
        let shortcut = match &block.shortcut {
            Some(layer) => nodes.layer(&x, layer),
            None => x,
        };
        x = nodes.push("Add", format!("{}.add", block.name), &[&way, &shortcut], &[], Vec::new());
        x = nodes.relu(&x, &block.name);
    }
    x = nodes.push("GlobalAveragePool", "avgpool", &[&x], &[], Vec::new());
    nodes.push("Flatten", FEATURES, &[&x], &[], vec![("axis", Attribute::Number(1))]);
    nodes.0
}

/// Adds a tensor of float32 to the graph.
fn initializer(graph: &mut Message, name: &str, tensor: &Tensor) -> Result<()> {
    let data = from_tensor(tensor)?;
    graph.message(5, |message| {
        data.shape().iter().for_each(|&extent| message.varint(1, extent as u64));
        message.varint(2, FLOAT);
        message.text(8, name);
        message.bytes(9, data.bytes());
    });
    Ok(())
}

/// The length of one dimension: free under a name, or a number.
enum Extent {
    Any(&'static str),
    Of(u64),
}

/// A `ValueInfoProto`: name, type of the elements and shape.
fn value(message: &mut Message, name: &str, elements: u64, shape: &[Extent]) {
    message.text(1, name);
    message.message(2, |kind| {
        kind.message(1, |tensor| {
            tensor.varint(1, elements);
            tensor.message(2, |message| {
                for extent in shape {
                    message.message(1, |dimension| match extent {
                        Extent::Of(length) => dimension.varint(1, *length),
                        Extent::Any(name) => dimension.text(2, name),
                    });
                }
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HeadConfig, HeadMode};
    use crate::model::{Encoder, HEAD_PREFIX, HeadKind};
    use std::collections::BTreeSet;
    use tch::Device;

    #[test]
    fn every_node_reads_what_an_earlier_one_gives_and_all_but_the_features_is_read() {
        for &depth in Depth::ALL {
            for &stem in Stem::ALL {
                let nodes = nodes(depth, stem);
                let (mut known, mut read) = (BTreeSet::from([IMAGES]), BTreeSet::new());
                for node in &nodes {
                    for input in &node.inputs {
                        assert!(known.contains(input.as_str()), "{depth} {stem}: {} reads {input}", node.name);
                        read.insert(input.as_str());
                    }
                    assert!(known.insert(&node.name), "{depth} {stem}: two nodes give {}", node.name);
                }
                assert_eq!(known.difference(&read).collect::<Vec<_>>(), [&FEATURES], "{depth} {stem}");
            }
        }
    }

    #[test]
    fn every_tensor_of_the_network_is_in_the_graph_once() {
        let normalisation = Normalisation { mean: [0.5; 3], std: [0.25; 3] };
        let head = HeadConfig { mode: HeadMode::None, layers: 1, out_dim: 1 };
        let config = ModelConfig { depth: Depth::Res10, stem: Stem::Imagenet, normalisation, head };
        let state = Encoder::new(&config, HeadKind::Projection, Device::Cpu, 0).state_dict();
        let names = state.iter().map(|(name, _)| name);
        let mut expected: Vec<&str> =
            names.filter(|name| !name.starts_with(HEAD_PREFIX) && !name.ends_with(".num_batches_tracked")).collect();
        // Images are divided by 255 before.
        expected.push(WHITE);
        expected.sort_unstable();
        let nodes = nodes(Depth::Res10, Stem::Imagenet);
        let mut found: Vec<&str> = nodes.iter().flat_map(Node::weights).collect();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}
