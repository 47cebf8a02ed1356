//! Pictures made up for the renderers of views.

use flatnce::augment::{Renderer, ViewParameters, draw};
use flatnce::config::Augmentation;
use flatnce::pixels::RgbRef;
use flatnce::rng::{Purpose, Stream};
use tch::{Kind, Tensor};

/// Images of one size.
pub struct Pictures {
    pub pixels: Vec<u8>,
    pub width: usize,
    pub height: usize,
}

/// What is in a picture.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "each test has its own")]
pub enum Content {
    /// Smooth parts, edges and noise.
    Mixed,
    /// The same, every fifth picture grey.
    SomeGrey,
    /// Every level of every channel on its own.
    Noise,
    /// Equal channels.
    Grey,
}

impl Pictures {
    pub fn new(count: usize, width: usize, height: usize, content: Content) -> Pictures {
        let mut noise = Stream::new(11, Purpose::Subset, width as u64, height as u64, 0);
        let mut pixels = Vec::with_capacity(count * width * height * 3);
        for place in 0..count * width * height {
            let (x, y) = (place % width, place / width % height);
            let base = [x * 255 / width, y * 255 / height, (x / 3 + y / 3) % 2 * 160];
            let mut mixed = || base.map(|level| (level as u64 + noise.below(64)).min(255) as u8);
            pixels.extend(match content {
                Content::SomeGrey if place / (width * height) % 5 == 4 => [mixed()[0]; 3],
                Content::Mixed | Content::SomeGrey => mixed(),
                Content::Noise => [0; 3].map(|_: u8| noise.below(256) as u8),
                Content::Grey => [noise.below(256) as u8; 3],
            });
        }
        Pictures { pixels, width, height }
    }

    pub fn count(&self) -> usize {
        self.pixels.len() / (self.width * self.height * 3)
    }

    pub fn get(&self, number: usize) -> RgbRef<'_> {
        let stride = self.width * self.height * 3;
        RgbRef { width: self.width, height: self.height, pixels: &self.pixels[number * stride..][..stride] }
    }

    /// `[N, H, W, 3]` u8.
    pub fn tensor(&self) -> Tensor {
        let shape = [self.count() as i64, self.height as i64, self.width as i64, 3];
        Tensor::from_data_size(&self.pixels, &shape, Kind::Uint8)
    }

    /// Parameters of `count` views, view v of picture [`Pictures::row`].
    pub fn drawn(&self, recipe: &Augmentation, count: usize) -> Vec<ViewParameters> {
        let stream = |view| Stream::new(3, Purpose::View, 0, view as u64, 0);
        (0..count).map(|view| draw(recipe, &mut stream(view), self.width, self.height)).collect()
    }

    /// The picture of a view: every one in turn, but not in order.
    pub fn row(&self, view: usize) -> usize {
        11 * view % self.count()
    }

    /// The same for so many views, `[views]`.
    pub fn rows(&self, views: usize) -> Tensor {
        Tensor::from_slice(&(0..views).map(|view| self.row(view) as i64).collect::<Vec<_>>())
    }

    /// The views as the CPU's threads render them.
    pub fn by_cpu(&self, views: &[ViewParameters], kernel_px: u32, size: usize) -> Vec<u8> {
        let mut renderer = Renderer::new();
        let mut all = vec![0; views.len() * size * size * 3];
        for ((number, view), out) in views.iter().enumerate().zip(all.chunks_exact_mut(size * size * 3)) {
            renderer.view(self.get(self.row(number)), view, kernel_px, size, out);
        }
        all
    }
}
