//! When training has come to its end: one rule for pre-training, fine-tuning and linear classifiers.

use crate::optim::Scaler;

/// Looking at a loss waits for a GPU; once in so many steps it costs nothing.
pub const STEPS_BETWEEN_LOOKS: u64 = 50;

/// What no further step can mend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// It is not finite.
    Loss(f64),
    /// Of fp16: it has no floor.
    Scale(f64),
}

impl Fault {
    /// What a step shows: its loss; whether it was left out, because a scaled gradient was not finite, and so says nothing
    /// by its loss; the loss scale, NaN without one.
    pub fn of(loss: f64, left_out: bool, scale: f64) -> Option<Fault> {
        if scale < Scaler::FLOOR {
            return Some(Fault::Scale(scale));
        }
        (!loss.is_finite() && !left_out).then_some(Fault::Loss(loss))
    }

    /// In words; `at` says which step it was.
    pub fn told(self, at: &str) -> String {
        match self {
            Fault::Loss(loss) => format!("the loss is {loss} {at}"),
            Fault::Scale(scale) => {
                format!("the loss scale has fallen to {scale:.1e} {at}: whatever the scale, numbers overflow in fp16")
            }
        }
    }
}
