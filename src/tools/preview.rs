//! `flatnce preview`: originals and their two views, exactly those that a
//! training run with the same flags sees first.

use crate::augment::{OPS, draw};
use crate::checkpoint::{Notes, write_safetensors};
use crate::config::{Augmentation, DataConfig, DataOnDevice, Engine};
use crate::data::{Part, Split, counted};
use crate::loader::{Loader, Order, Rendering};
use crate::pixels::{RgbImage, RgbRef};
use crate::report::{Console, Table, contact_sheet, enlarged, save_png, short};
use crate::rng::{Purpose, Stream};
use crate::state::StateDict;
use crate::train::readable;
use crate::values::count;
use anyhow::{Context, Result, bail};
use image::imageops::{self, FilterType};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Tensor};

/// Small tiles are enlarged to about this side.
const TILE_PX: usize = 96;

/// Images on the sheet where nobody asks for more or fewer.
const USUAL_IMAGES: usize = 16;

/// Width that the sheet is to stay near.
const SHEET_PX: usize = 1400;

/// Which views are drawn, and where to.
#[derive(Clone, Debug, clap::Args)]
pub struct Sheet {
    /// Picture to write
    #[arg(long, value_name = "FILE.png", default_value = "views.png", help_heading = "Preview")]
    pub out: PathBuf,
    /// Images on the sheet, the first ones of the epoch [default: 16, or all that there are]
    #[arg(long, value_name = "N", help_heading = "Preview", value_parser = count::<1>)]
    pub images: Option<u32>,
    /// Epoch whose views are shown, counted from 0
    #[arg(long, value_name = "N", default_value = "0", help_heading = "Preview", value_parser = count::<0>)]
    pub epoch: u32,
    /// Seed of the run whose views are shown
    #[arg(long, value_name = "N", default_value = "42", help_heading = "Preview")]
    pub seed: u64,
    /// Print what was drawn for each view
    #[arg(long, help_heading = "Preview")]
    pub parameters: bool,
    /// Also write batches of views, for training elsewhere on exactly these pixels
    ///
    /// A safetensors file with `views`, u8 [--batches, 2 x --images, side, side, 3]: the first views of a batch's images,
    /// then their second views, as a run with --batch-size equal to --images sees them; and `samples`, i64 [--batches,
    /// --images], the images' places in the data set.
    #[arg(long, value_name = "FILE.safetensors", help_heading = "Preview")]
    pub views: Option<PathBuf>,
    /// Batches in --views, the first ones of the epoch
    #[arg(long, value_name = "N", default_value = "1", help_heading = "Preview", value_parser = count::<1>)]
    pub batches: u32,
}

/// Draw images and their views.
#[derive(Clone, Debug)]
pub struct Preview {
    pub sheet: Sheet,
    pub data: DataConfig,
    pub augmentation: Augmentation,
    /// On the CPU, whichever it is.
    pub engine: Engine,
}

/// Writes the sheet, and prints the drawn parameters if they are asked for.
///
/// Errors: data that is missing or too small, a picture that cannot be written.
pub fn run(preview: &Preview, console: &Console) -> Result<()> {
    let split = Arc::new(readable::load(&preview.data, Part::Unlabelled, console)?.split);
    console.note(&split.describe());
    let size = preview.data.image_size_px as usize;
    let images = match preview.sheet.images.map(|images| images as usize) {
        Some(images) if images > split.len() => {
            bail!("{} has {}; choose a smaller --images than {images}", split.name, counted(split.len(), "image"))
        }
        Some(images) => images,
        None => USUAL_IMAGES.min(split.len()),
    };
    let rendering = Rendering::Views { recipe: preview.augmentation.clone(), size_px: size };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let loader = Loader::new(Arc::clone(&split), rendering, Order::Shuffled, images, preview.sheet.seed, workers)?;
    let loader = match preview.engine {
        Engine::Cpu => loader,
        Engine::Tensor => loader.on_device(Device::Cpu, DataOnDevice::Auto)?,
    };
    let (epoch, batches) = (u64::from(preview.sheet.epoch), preview.sheet.batches as usize);
    if preview.sheet.views.is_some() && batches > loader.batches() {
        let (batches, images) = (counted(loader.batches(), "batch"), counted(images, "image"));
        bail!("an epoch has {batches} of {images}; choose a smaller --batches");
    }
    let batch = loader.epoch(epoch, 0).next().context("the loader has no batch")??;
    let pixels = Vec::<u8>::try_from(batch.images.contiguous().view(-1))?;
    let view = |number: usize, sample: usize| {
        let stride = size * size * 3;
        let start = (number * images + sample) * stride;
        RgbRef { width: size, height: size, pixels: &pixels[start..start + stride] }
    };
    let mut scratch = RgbImage::default();
    let mut groups = Vec::with_capacity(images);
    for (place, &sample) in batch.samples.iter().enumerate() {
        let original = fitted(split.image(sample, &mut scratch)?, size.max(TILE_PX));
        groups.push(vec![original, enlarged(view(0, place), TILE_PX), enlarged(view(1, place), TILE_PX)]);
    }
    save_png(&preview.sheet.out, contact_sheet(&groups, (SHEET_PX / (3 * size.max(TILE_PX))).max(1)).as_ref())?;
    if let Some(file) = &preview.sheet.views {
        export(file, &loader, epoch, batches, preview, console)?;
    }
    if preview.sheet.parameters {
        console.result(&parameters(preview, &split, &batch.samples)?.to_string());
    }
    console.result(&format!(
        "{}, each with its two views in epoch {} at seed {}: {}",
        counted(images, "image"),
        preview.sheet.epoch,
        preview.sheet.seed,
        preview.sheet.out.display()
    ));
    Ok(())
}

/// Batches of views as training has them, in one file.
fn export(
    file: &Path,
    loader: &Loader,
    epoch: u64,
    batches: usize,
    preview: &Preview,
    console: &Console,
) -> Result<()> {
    let (mut views, mut samples) = (Vec::with_capacity(batches), Vec::with_capacity(batches));
    for batch in loader.epoch(epoch, 0).take(batches) {
        let batch = batch?;
        views.push(batch.images);
        let places: Vec<i64> = batch.samples.iter().map(|&place| place as i64).collect();
        samples.push(Tensor::from_slice(&places));
    }
    let mut state = StateDict::new();
    state.push("views", Tensor::stack(&views, 0));
    state.push("samples", Tensor::stack(&samples, 0));
    let mut notes = Notes::new();
    notes.insert("dataset".into(), preview.data.dataset.name().into());
    notes.insert("seed".into(), preview.sheet.seed.to_string());
    notes.insert("epoch".into(), epoch.to_string());
    notes.insert("engine".into(), preview.engine.name().into());
    notes.insert("augmentation".into(), serde_json::to_string(&preview.augmentation)?);
    let bytes = write_safetensors(file, &state, &notes)?;
    console.note(&format!(
        "{} of views, {:.1} MiB: {}",
        counted(batches, "batch"),
        bytes as f64 / 1048576.0,
        file.display()
    ));
    Ok(())
}

/// The picture within a square of side `side_px`, its shape kept; small ones are enlarged pixel by pixel.
fn fitted(picture: RgbRef, side_px: usize) -> RgbImage {
    let longer = picture.width.max(picture.height);
    if longer <= side_px {
        let factor = side_px / longer.max(1);
        return enlarged(picture, longer * factor);
    }
    let scaled = |length: usize| (length * side_px).div_ceil(longer).max(1);
    let (width, height) = (scaled(picture.width), scaled(picture.height));
    let whole = image::RgbImage::from_raw(picture.width as u32, picture.height as u32, picture.pixels.to_vec())
        .expect("the pixels fill the picture");
    let small = imageops::resize(&whole, width as u32, height as u32, FilterType::Triangle);
    RgbImage { width, height, pixels: small.into_raw() }
}

/// What was drawn for each view, a row each.
fn parameters(preview: &Preview, split: &Split, samples: &[usize]) -> Result<Table> {
    let fixed = ["image", "view", "crop: left, top, width x height", "flip", "jitter b, c, s, hue"];
    let mut table = Table::new(fixed.into_iter().chain(OPS.map(|op| op.name)));
    let mut scratch = RgbImage::default();
    let yes = |set: bool| if set { "yes" } else { "" }.to_owned();
    for &sample in samples {
        let image = split.image(sample, &mut scratch)?;
        for view in 0..2u32 {
            // The stream that the loader draws from.
            let mut stream =
                Stream::new(preview.sheet.seed, Purpose::View, u64::from(preview.sheet.epoch), sample as u64, view);
            let drawn = draw(&preview.augmentation, &mut stream, image.width, image.height);
            let crop = drawn.crop;
            let jitter = drawn.jitter.map_or(String::new(), |j| {
                [j.brightness, j.contrast, j.saturation, j.hue].map(|factor| short(f64::from(factor))).join(", ")
            });
            let fixed = [
                sample.to_string(),
                (view + 1).to_string(),
                format!("{}, {}, {} x {}", crop.left, crop.top, crop.width, crop.height),
                yes(drawn.flip),
                jitter,
            ];
            let ops = OPS.iter().zip(drawn.ops).map(|(op, number)| match number {
                Some(number) if (op.most_numbers)(1) > 0 => short(f64::from(number)),
                number => yes(number.is_some()),
            });
            table.row(fixed.into_iter().chain(ops));
        }
    }
    Ok(table)
}
