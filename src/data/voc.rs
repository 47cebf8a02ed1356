//! PASCAL VOC 2007 as a classification set: the label of an image is the class of
//! the first object in its annotation, as upstream's `PascalVOC_Dataset` takes it.
//! `trainval` is for training, `test` for testing.

use super::protocol::PHOTOGRAPHS;
use super::source::inside;
use super::{FileList, Part, Source, Split};
use crate::config::DatasetName;
use crate::files;
use anyhow::{Result, anyhow, bail};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

pub static VOC: Source = Source {
    name: DatasetName::Voc,
    protocol: PHOTOGRAPHS,
    classes: Some(20),
    homes: &[
        "VOC/VOCdevkit/VOC2007",
        "voc/VOCdevkit/VOC2007",
        "VOCdevkit/VOC2007",
        "VOC/VOC2007",
        "voc/VOC2007",
        "VOC2007",
    ],
    several_roots: false,
    how_to_get: "it is published at http://host.robots.ox.ac.uk/pascal/VOC/voc2007; the layout that is read is in \
                 datasets/README.md",
    load: |source, data, part| load(source, &data.root, part),
};

const CLASSES: &str = "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person \
    pottedplant sheep sofa train tvmonitor";

/// Of an annotation; the longest of VOC 2007 has less than a tenth of it. The parser takes time with the square of the
/// attributes of an element.
const ANNOTATION_BYTES: u64 = 128 << 10;

fn load(source: &Source, root: &Path, part: Part) -> Result<Split> {
    let home = source.locate(root, &["ImageSets/Main"])?;
    let list_name = if part == Part::Test { "test" } else { "trainval" };
    let list = home.join("ImageSets/Main").join(format!("{list_name}.txt"));
    let text = source.read_text(&list, files::LIST_BYTES)?;
    let ids: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if ids.is_empty() {
        bail!("{} names no image; {}", list.display(), source.how_to_get);
    }
    for id in &ids {
        inside(id).map_err(|what| anyhow!("{}: {what}; {}", list.display(), source.how_to_get))?;
    }
    let label = |id: &&str| label_of(source, &home.join("Annotations").join(format!("{id}.xml")));
    let labels = ids.par_iter().map(label).collect::<Result<Vec<i64>>>()?;
    let mut files = FileList::new(home.join("JPEGImages"));
    for id in ids {
        files.push(&PathBuf::from(format!("{id}.jpg")));
    }
    Ok(Split::labelled(files, labels, CLASSES.split_ascii_whitespace(), source.part_name(list_name)))
}

fn label_of(source: &Source, path: &Path) -> Result<i64> {
    let text = source.read_text(path, ANNOTATION_BYTES)?;
    let class = first_object(&text).map_err(|what| anyhow!("{}: {what}", path.display()))?;
    let label = CLASSES.split_ascii_whitespace().position(|name| name == class);
    let label = label.ok_or_else(|| anyhow!("{}: {class:?} is none of the 20 classes of VOC", path.display()))?;
    Ok(label as i64)
}

/// The class of the first object of an annotation.
fn first_object(xml: &str) -> Result<String, String> {
    let document = roxmltree::Document::parse(xml).map_err(|error| format!("broken XML ({error})"))?;
    let object = document.root_element().children().find(|node| node.has_tag_name("object"));
    let object = object.ok_or("it has no object, so no label")?;
    // The object's own name: its parts (a person's head) and the photograph's owner have names too.
    let name = object.children().find(|node| node.has_tag_name("name")).and_then(|node| node.text());
    Ok(name.ok_or("its first object has no name")?.trim().to_owned())
}
