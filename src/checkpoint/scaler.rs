//! The entry `scaler`, in the words of `torch.amp.GradScaler.state_dict`.

use crate::state::ScalerState;
use crate::torch_file::{Dict, Value};
use anyhow::{Result, anyhow, bail};

pub(super) fn to_value(state: &ScalerState) -> Value {
    let mut scaler = Dict::new();
    scaler.insert("scale", state.scale);
    scaler.insert("growth_factor", state.growth_factor);
    scaler.insert("backoff_factor", state.backoff_factor);
    scaler.insert("growth_interval", state.growth_interval);
    scaler.insert("_growth_tracker", state.growth_tracker);
    Value::Dict(scaler)
}

/// `None` for the empty dictionary of a scaler that was switched off.
pub(super) fn from_value(value: &Value) -> Result<Option<ScalerState>> {
    let Some(scaler) = value.as_dict() else { bail!("scaler is {}", value.kind()) };
    if scaler.iter().len() == 0 {
        return Ok(None);
    }
    let entry = |key: &str| scaler.get(key).ok_or_else(|| anyhow!("scaler has no entry {key}"));
    let number = |key: &str| entry(key)?.as_f64().ok_or_else(|| anyhow!("scaler.{key} is no number"));
    let count = |key: &str| entry(key)?.as_int().ok_or_else(|| anyhow!("scaler.{key} is no count"));
    Ok(Some(ScalerState {
        scale: number("scale")?,
        growth_factor: number("growth_factor")?,
        backoff_factor: number("backoff_factor")?,
        growth_interval: count("growth_interval")?,
        growth_tracker: count("_growth_tracker")?,
    }))
}
