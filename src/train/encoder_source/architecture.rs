//! What a network must be, read from its tensors alone: for checkpoints that
//! PyTorch wrote and that carry no configuration.

use crate::config::{Depth, HeadConfig, HeadMode, ModelConfig, Normalisation, Range, Stem};
use crate::state::StateDict;
use anyhow::{Context, Result, anyhow, bail};
use tch::{Kind, Tensor};

/// Depth, stem, normalisation and projection head of an encoder with torchvision's names (module. already removed).
///
/// Errors: what cannot be known, and why.
pub fn recognise(state: &StateDict) -> Result<ModelConfig> {
    Ok(ModelConfig {
        depth: depth(state)?,
        stem: stem(state)?,
        normalisation: normalisation(state)?,
        head: recognise_head(state)?,
    })
}

/// Depth and stem of a trunk with torchvision's names.
///
/// Errors: what cannot be known, and why.
pub fn recognise_trunk(state: &StateDict) -> Result<(Depth, Stem)> {
    Ok((depth(state)?, stem(state)?))
}

fn depth(state: &StateDict) -> Result<Depth> {
    let blocks = [1, 2, 3, 4].map(|stage| {
        (0..).take_while(|block| state.get(&format!("layer{stage}.{block}.conv1.weight")).is_some()).count()
    });
    let bottleneck = state.get("layer1.0.conv3.weight").is_some();
    Ok(match (blocks, bottleneck) {
        ([1, 1, 1, 1], false) => Depth::Res10,
        ([2, 2, 2, 2], false) => Depth::Res18,
        ([3, 4, 6, 3], false) => Depth::Res34,
        ([3, 4, 6, 3], true) => Depth::Res50,
        ([3, 4, 23, 3], true) => Depth::Res101,
        ([3, 8, 36, 3], true) => Depth::Res152,
        ([0, 0, 0, 0], _) => bail!(
            "it has no layer1.0.conv1.weight: this is no ResNet with torchvision's names (its first entries are {})",
            state.iter().take(3).map(|(name, _)| name).collect::<Vec<_>>().join(", ")
        ),
        (blocks, bottleneck) => bail!(
            "its stages have {blocks:?} {} blocks, which is none of {}",
            if bottleneck { "bottleneck" } else { "basic" },
            Depth::NAMES.join(", ")
        ),
    })
}

fn stem(state: &StateDict) -> Result<Stem> {
    let shape = state.get("conv1.weight").map(Tensor::size).ok_or_else(|| anyhow!("it has no conv1.weight"))?;
    match shape.as_slice() {
        [64, 3, 3, 3] => Ok(Stem::Small),
        [64, 3, 7, 7] => Ok(Stem::Imagenet),
        other => bail!("its conv1.weight is {other:?}; known are [64, 3, 3, 3] and [64, 3, 7, 7]"),
    }
}

fn normalisation(state: &StateDict) -> Result<Normalisation> {
    let three = |name: &str| -> Result<[f32; 3]> {
        let tensor = state.get(name).ok_or_else(|| {
            anyhow!(
                "it has no {name}, so the normalisation it was trained with is unknown; add normalize.mean and \
                 normalize.std (3 numbers each, for images in [0, 1]) to its model_state_dict"
            )
        })?;
        let count = tensor.numel();
        if count != 3 {
            bail!("{name} has {count} numbers instead of 3");
        }
        let values = Vec::<f32>::try_from(tensor.to_kind(Kind::Float).contiguous().view(-1))?;
        Ok([values[0], values[1], values[2]])
    };
    Ok(Normalisation { mean: three("normalize.mean")?, std: three("normalize.std")? })
}

/// The projection head, where there is one of ours. It does not matter to an evaluation, which replaces it.
///
/// Errors: weights that are no matrices, more layers or outputs than a head can have.
pub fn recognise_head(state: &StateDict) -> Result<HeadConfig> {
    let name = |place: u32| format!("fc.linear_layers.net.{place}.weight");
    let outputs = |place: u32| -> Result<u32> {
        let shape = state.get(&name(place)).map(Tensor::size).unwrap_or_default();
        match shape[..] {
            [outputs, _] if Range::HEAD_WIDTH.allows(outputs as f64) => Ok(outputs as u32),
            _ => bail!("its {} is {shape:?}, not [outputs, inputs]; outputs: {}", name(place), Range::HEAD_WIDTH),
        }
    };
    if state.get("fc.linear_layers.net.1.running_mean").is_some() {
        return Ok(HeadConfig { mode: HeadMode::Linear, layers: 1, out_dim: outputs(0)? });
    }
    match (0..).take_while(|place| state.get(&name(2 * place)).is_some()).count() as u32 {
        0 => Ok(HeadConfig { mode: HeadMode::None, layers: 0, out_dim: 0 }),
        layers if !Range::HEAD_LAYERS.allows(layers.into()) => {
            bail!("its projection head has {layers} layers; known is {}", Range::HEAD_LAYERS)
        }
        layers => Ok(HeadConfig { mode: HeadMode::Nonlinear, layers, out_dim: outputs(2 * layers - 2)? }),
    }
}

/// The state with `normalize.mean` and `normalize.std` in the shape `[3]` that ours have; some programs keep `[1, 3, 1, 1]`.
pub fn with_flat_normalisation(state: &StateDict) -> Result<StateDict> {
    let mut flat = StateDict::new();
    for (name, tensor) in state.iter() {
        let tensor = match name {
            "normalize.mean" | "normalize.std" => {
                tensor.f_contiguous()?.f_view([3]).with_context(|| format!("{name} has not 3 numbers"))?
            }
            _ => tensor.shallow_clone(),
        };
        flat.push(name, tensor);
    }
    Ok(flat)
}
