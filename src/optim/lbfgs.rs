//! Limited-memory BFGS (Liu and Nocedal, 1989) for smooth problems whose whole
//! gradient is affordable: here the linear classifier on cached features.
//!
//! Unlike `torch.optim.LBFGS` with its defaults, which takes unit steps and may
//! diverge, every step satisfies the strong Wolfe conditions, so the objective
//! never rises.

use std::collections::VecDeque;
use tch::Tensor;

/// Pairs of steps and gradient changes kept.
const HISTORY: usize = 20;
/// Sufficient decrease and curvature constants of the Wolfe conditions.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
/// Evaluations of the objective in one line search.
const SEARCH_LIMIT: usize = 25;

/// A point, the objective there and its gradient.
struct Point {
    x: Tensor,
    value: f64,
    gradient: Tensor,
}

/// Minimises an objective over one flat vector, an iteration at a time.
pub struct Lbfgs<F: FnMut(&Tensor) -> (f64, Tensor)> {
    objective: F,
    at: Point,
    pairs: VecDeque<(Tensor, Tensor, f64)>,
}

impl<F: FnMut(&Tensor) -> (f64, Tensor)> Lbfgs<F> {
    /// `objective` answers with the value and the gradient at a point `[P]`; `start` is `[P]`.
    pub fn new(start: &Tensor, mut objective: F) -> Self {
        let _guard = tch::no_grad_guard();
        let (value, gradient) = objective(start);
        let at = Point { x: start.copy(), value, gradient };
        Lbfgs { objective, at, pairs: VecDeque::new() }
    }

    /// The best point so far, `[P]`.
    pub fn x(&self) -> &Tensor {
        &self.at.x
    }

    /// The objective there.
    pub fn value(&self) -> f64 {
        self.at.value
    }

    /// One iteration; false when nothing is left to gain: the gradient is below `tolerance` everywhere, or no step
    /// lowers the objective in this precision.
    pub fn step(&mut self, tolerance: f64) -> bool {
        let _guard = tch::no_grad_guard();
        let steepest = f64_of(&self.at.gradient.abs().max());
        if steepest.is_nan() || steepest <= tolerance {
            return false;
        }
        let mut direction = self.direction();
        let mut slope = dot(&direction, &self.at.gradient);
        if slope >= 0.0 || slope.is_nan() {
            // Rounding has spoilt the curvature pairs; begin again with steepest descent.
            self.pairs.clear();
            direction = self.at.gradient.neg();
            slope = dot(&direction, &self.at.gradient);
        }
        let first =
            if self.pairs.is_empty() { (1.0 / f64_of(&self.at.gradient.abs().sum(None))).min(1.0) } else { 1.0 };
        let Some(next) = self.search(&direction, slope, first) else { return false };
        let (s, y) = (&next.x - &self.at.x, &next.gradient - &self.at.gradient);
        let curvature = dot(&s, &y);
        if curvature > 1e-10 * dot(&y, &y) {
            self.pairs.push_back((s, y, curvature));
            if self.pairs.len() > HISTORY {
                self.pairs.pop_front();
            }
        }
        self.at = next;
        true
    }

    /// The two-loop recursion: minus the inverse Hessian's estimate times the gradient.
    fn direction(&self) -> Tensor {
        let mut q = self.at.gradient.neg();
        let mut shares = Vec::with_capacity(self.pairs.len());
        for (s, y, curvature) in self.pairs.iter().rev() {
            let share = dot(s, &q) / curvature;
            q -= y * share;
            shares.push(share);
        }
        if let Some((_, y, curvature)) = self.pairs.back() {
            q *= curvature / dot(y, y);
        }
        for ((s, y, curvature), share) in self.pairs.iter().zip(shares.iter().rev()) {
            q = &q + s * (share - dot(y, &q) / curvature);
        }
        q
    }

    /// A step length that satisfies the strong Wolfe conditions: widen until they are bracketed, then bisect. With the
    /// evaluations used up, the lowest point seen; `None` if none is lower.
    fn search(&mut self, direction: &Tensor, slope: f64, first: f64) -> Option<Point> {
        let (mut low, mut high, mut length) = (0.0, f64::INFINITY, first);
        let mut lowest: Option<Point> = None;
        for _ in 0..SEARCH_LIMIT {
            let x = &self.at.x + direction * length;
            let (value, gradient) = (self.objective)(&x);
            let slope_here = dot(direction, &gradient);
            let too_far = !value.is_finite() || value > self.at.value + DECREASE * length * slope;
            if too_far || slope_here > -CURVATURE * slope {
                high = length;
            } else if slope_here < CURVATURE * slope {
                low = length;
            } else {
                return Some(Point { x, value, gradient });
            }
            if value < lowest.as_ref().map_or(self.at.value, |p| p.value) {
                lowest = Some(Point { x, value, gradient });
            }
            length = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * length };
        }
        lowest
    }
}

fn f64_of(scalar: &Tensor) -> f64 {
    scalar.double_value(&[])
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    f64_of(&a.dot(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// Rosenbrock's valley: 1 at the origin's far side, minimum 0 at (1, 1).
    fn valley(p: &Tensor) -> (f64, Tensor) {
        let (x, y) = (p.double_value(&[0]), p.double_value(&[1]));
        let value = (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2);
        let gradient = [-2.0 * (1.0 - x) - 400.0 * x * (y - x * x), 200.0 * (y - x * x)];
        (value, Tensor::from_slice(&gradient))
    }

    #[test]
    fn finds_the_minimum_of_a_curved_valley_and_never_climbs() {
        let mut solver = Lbfgs::new(&Tensor::from_slice(&[-1.2, 1.0]), valley);
        let mut last = solver.value();
        while solver.step(1e-9) {
            assert!(solver.value() <= last);
            last = solver.value();
        }
        assert!((solver.x() - 1.0).abs().max().double_value(&[]) < 1e-6, "{:?}", solver.x());
    }

    #[test]
    fn a_quadratic_of_many_dimensions_is_solved_exactly() {
        let scales = Tensor::arange_start(1, 51, (Kind::Double, Device::Cpu));
        let target = Tensor::arange_start(0, 50, (Kind::Double, Device::Cpu)) * 0.1;
        let objective = |x: &Tensor| {
            let error = x - &target;
            ((&error * &error * &scales).sum(None).double_value(&[]) * 0.5, &error * &scales)
        };
        let mut solver = Lbfgs::new(&Tensor::zeros([50], (Kind::Double, Device::Cpu)), objective);
        let mut iterations = 0;
        while solver.step(1e-10) {
            iterations += 1;
        }
        assert!(iterations < 120, "{iterations} iterations");
        assert!((solver.x() - &target).abs().max().double_value(&[]) < 1e-8);
    }
}
