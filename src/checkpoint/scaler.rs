//! The entry `scaler`, in the words of `torch.amp.GradScaler.state_dict`.

use super::entry;
use crate::state::ScalerState;
use crate::torch_file::{Dict, Value};
use anyhow::{Context, Result, bail};

pub(super) fn to_value(state: &ScalerState) -> Value {
    Value::from(Dict::from_iter([
        ("scale", Value::Float(state.scale)),
        ("growth_factor", state.growth_factor.into()),
        ("backoff_factor", state.backoff_factor.into()),
        ("growth_interval", state.growth_interval.into()),
        ("_growth_tracker", state.growth_tracker.into()),
    ]))
}

/// `None` for the empty dictionary of a scaler that was switched off.
pub(super) fn from_value(value: &Value) -> Result<Option<ScalerState>> {
    let Some(scaler) = value.as_dict() else { bail!("scaler is {}", value.kind()) };
    if scaler.is_empty() {
        return Ok(None);
    }
    let number = |key: &str| entry(value, key, Value::as_f64);
    let state = || -> Result<ScalerState> {
        Ok(ScalerState {
            scale: number("scale")?,
            growth_factor: number("growth_factor")?,
            backoff_factor: number("backoff_factor")?,
            growth_interval: entry(value, "growth_interval", Value::as_int)?,
            growth_tracker: entry(value, "_growth_tracker", Value::as_int)?,
        })
    };
    state().map(Some).context("its gradient scaler cannot be understood")
}
