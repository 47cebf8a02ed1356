//! Where in a file the tensors of a ResNet stand, and what they are called there: training programs put words before
//! torchvision's names (`state_dict.module.encoder_q.conv1.weight`), or number the parts (`backbone.0.weight`).
//!
//! | file | where its ResNet stands |
//! |---|---|
//! | torchvision, timm, Barlow Twins | at the top |
//! | MoCo | `state_dict.module.encoder_q.`, a copy under `encoder_k.` |
//! | SwAV | `module.`, with `projection_head.` and `prototypes.` beside |
//! | DINO | `student.module.backbone.` and `teacher.backbone.` |
//! | solo-learn | `state_dict.backbone.`, with BYOL and MoCo a copy under `momentum_backbone.` |
//! | lightly | `state_dict.backbone.0.`, `.1.`, `.4.` ...: the children of torchvision's ResNet in order |
//! | VISSL | `classy_state_dict.base_model.model.trunk._feature_blocks.` |
//!
//! No word is known here: a place is where the names behind it are a ResNet's.

use crate::data::counted;
use crate::model::HEAD_PREFIX;
use crate::state::StateDict;
use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// Of two copies of a network the one that is trained, and the one that follows it, as a project calls them.
const CONVENTIONS: [(&str, &str, &str); 3] = [
    ("MoCo", "encoder_q", "encoder_k"),
    ("solo-learn", "backbone", "momentum_backbone"),
    ("lightly", "backbone", "backbone_momentum"),
];

/// What belongs to a network under torchvision's names, and what of ours.
const PARTS: [&str; 8] = ["normalize", "conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"];

/// The projection head of this program and of upstream.
const OWN_HEAD: &str = "fc.linear_layers.";

/// A ResNet of a file.
#[derive(Debug)]
pub struct Taken {
    /// Under torchvision's names.
    pub state: StateDict,
    /// What stands before its names in the file; empty, or with a dot at its end.
    prefix: String,
    /// Why this one of several.
    reason: Option<String>,
    /// Tensors in the file.
    all: usize,
    /// What stands beside the network and is no part of it.
    beside: BTreeMap<String, usize>,
}

impl Taken {
    /// A whole network with nothing beside it.
    pub fn whole(state: StateDict) -> Taken {
        Taken { all: state.len(), state, prefix: String::new(), reason: None, beside: BTreeMap::new() }
    }

    /// What was taken of the file and what was not, where there is anything to say; `head`: a classifier is not wanted.
    pub fn says(&self, head: bool) -> Option<String> {
        let is_head = |name: &str| name.starts_with(HEAD_PREFIX) && !name.starts_with(OWN_HEAD);
        let heads = if head { self.state.iter().filter(|(name, _)| is_head(name)).count() } else { 0 };
        let mut left_out: Vec<String> = (heads > 0).then(|| HEAD_PREFIX.to_owned()).into_iter().collect();
        left_out.extend(self.beside.keys().cloned());
        if self.prefix.is_empty() && left_out.is_empty() {
            return None;
        }
        let place = if self.prefix.is_empty() { "at its top".to_owned() } else { format!("under {}", self.prefix) };
        let mut said = format!("weights {place}: {} of {} tensors", self.state.len() - heads, self.all);
        if !left_out.is_empty() {
            said.push_str(&format!("; left out beside them: {}", left_out.join(", ")));
        }
        if let Some(reason) = &self.reason {
            said.push_str(&format!("; {reason}"));
        }
        Some(said)
    }
}

/// A place where a ResNet stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    prefix: String,
    /// Where its parts are numbered, the number of `layer1`.
    numbered: Option<usize>,
}

/// The one ResNet among all tensors of a file; of several the one that `key` (`--checkpoint-key`) names, in whole or
/// by some of the words before its names.
///
/// Errors: none is there, with what is there instead; several are, and nothing says which.
pub fn take(all: &StateDict, key: Option<&str>) -> Result<Taken> {
    let found = places(all);
    if found.is_empty() {
        bail!("it holds no ResNet with torchvision's names: {}", what_else(all));
    }
    let wanted = match key {
        Some(key) => named(&found, key)?,
        None => found.clone(),
    };
    let (place, reason) = settled(&wanted, all)?;
    let (mut state, mut beside) = (StateDict::new(), BTreeMap::new());
    for (name, tensor) in all.iter() {
        let Some(rest) = name.strip_prefix(&place.prefix) else { continue };
        match place.torchvision_name(rest) {
            Some(name) if state.get(&name).is_some() => bail!("{}{rest} is there twice", place.prefix),
            Some(name) => state.push(name, tensor.shallow_clone()),
            // A part of the file that holds the network itself, and not what is beside it.
            None if found.iter().any(|other| *other != place && name.starts_with(&other.prefix)) => {}
            None => {
                let (part, dot) = rest.split_once('.').map_or((rest, ""), |(part, _)| (part, "."));
                *beside.entry(format!("{part}{dot}")).or_insert(0) += 1;
            }
        }
    }
    Ok(Taken { state, prefix: place.prefix, reason, all: all.len(), beside })
}

impl Place {
    /// `rest` is a name behind the prefix; `None` for what is no part of the network.
    fn torchvision_name(&self, rest: &str) -> Option<String> {
        let (part, behind) = rest.split_once('.')?;
        let Some(first_stage) = self.numbered else {
            return PARTS.contains(&part).then(|| rest.to_owned());
        };
        let part = match part.parse::<usize>().ok()? {
            0 => "conv1".to_owned(),
            1 => "bn1".to_owned(),
            number if (first_stage..first_stage + 4).contains(&number) => format!("layer{}", number - first_stage + 1),
            _ => return None,
        };
        Some(format!("{part}.{behind}"))
    }

    fn shown(&self) -> &str {
        if self.prefix.is_empty() { "its top" } else { &self.prefix }
    }

    fn words(&self) -> Vec<&str> {
        self.prefix.split('.').filter(|word| !word.is_empty()).collect()
    }
}

/// Every place behind which the names are a ResNet's, sorted.
fn places(all: &StateDict) -> Vec<Place> {
    let has = |name: String| all.get(&name).is_some();
    let mut found = Vec::new();
    for (name, _) in all.iter() {
        let before = |end: &str| name.strip_suffix(end).filter(|prefix| prefix.is_empty() || prefix.ends_with('.'));
        if let Some(prefix) = before("conv1.weight").filter(|prefix| has(format!("{prefix}layer1.0.conv1.weight"))) {
            found.push(Place { prefix: prefix.to_owned(), numbered: None });
        } else if let Some(prefix) = before("0.weight").filter(|prefix| has(format!("{prefix}1.running_mean"))) {
            // Between them torchvision has a ReLU and a pooling layer, others leave them to a function.
            let stages = |first: &usize| (*first..first + 4).all(|n| has(format!("{prefix}{n}.0.conv1.weight")));
            let first = (2..=4).find(stages);
            found.extend(first.map(|first| Place { prefix: prefix.to_owned(), numbered: Some(first) }));
        }
    }
    found.sort();
    found
}

/// Those that a key names.
fn named(found: &[Place], key: &str) -> Result<Vec<Place>> {
    let key = key.trim_end_matches('.');
    let whole = |place: &&Place| place.prefix.trim_end_matches('.') == key;
    if let Some(place) = found.iter().find(whole) {
        return Ok(vec![place.clone()]);
    }
    let words: Vec<&str> = key.split('.').collect();
    let holds = |place: &&Place| place.words().windows(words.len()).any(|some| some == words);
    let named: Vec<Place> = found.iter().filter(holds).cloned().collect();
    if named.is_empty() {
        let shown: Vec<&str> = found.iter().map(Place::shown).collect();
        bail!(
            "--checkpoint-key {key}: no ResNet stands under it; there is one under {}",
            shown.join(", and one under ")
        );
    }
    Ok(named)
}

/// The one that is meant, and why, where there were others.
fn settled(wanted: &[Place], all: &StateDict) -> Result<(Place, Option<String>)> {
    if let [place] = wanted {
        return Ok((place.clone(), None));
    }
    // The copies go that stand where the trained network would, but for the word.
    let copy_of = |place: &Place| {
        CONVENTIONS.into_iter().find(|(_, trained, copy)| {
            let instead: Vec<&str> =
                place.words().iter().map(|word| if word == copy { *trained } else { *word }).collect();
            place.words().contains(copy) && wanted.iter().any(|other| other.words() == instead)
        })
    };
    let left: Vec<&Place> = wanted.iter().filter(|place| copy_of(place).is_none()).collect();
    if let [place] = left[..] {
        let (project, trained, copy) = wanted.iter().find_map(copy_of).expect("all others are copies");
        let reason =
            format!("{trained} is what {project} trains; --checkpoint-key {copy} takes the copy that follows it");
        return Ok((place.clone(), Some(reason)));
    }
    let listed: Vec<String> = wanted
        .iter()
        .map(|place| {
            let count = all.iter().filter(|(name, _)| name.starts_with(&place.prefix)).count();
            format!("{} ({})", place.shown(), counted(count, "tensor"))
        })
        .collect();
    bail!(
        "it holds {} ResNets, under {}: say which with --checkpoint-key, such as --checkpoint-key {}",
        wanted.len(),
        listed.join(" and "),
        wanted[wanted.len() - 1].prefix.trim_end_matches('.')
    )
}

/// What a file without a ResNet holds, as far as its names tell.
fn what_else(all: &StateDict) -> String {
    let any = |parts: &[&str]| all.iter().any(|(name, _)| parts.iter().any(|part| name.contains(part)));
    let kind = match () {
        () if any(&["patch_embed.", "cls_token", "class_token"]) => "a vision transformer, it seems",
        () if any(&["stages.0.blocks.", "dwconv.", "stages.0.0."]) => "a ConvNeXt or a network like it, it seems",
        () if any(&["conv1.0.weight"]) && any(&["layer1.0.conv1.weight"]) => {
            "a ResNet whose stem has several convolutions (a deep stem), which is not known here"
        }
        () if any(&["layer1.0.conv1.weight"]) => "a ResNet without its first convolution, conv1.weight",
        () if any(&["features.0."]) => "a network of torchvision's other kinds (features.0.)",
        () if all.is_empty() => "no tensor at all",
        () => "another network",
    };
    let first = all.iter().take(3).map(|(name, _)| name).collect::<Vec<_>>().join(", ");
    format!("{kind}; its first tensors are {first}; known are the ResNets that --model lists")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    fn state(names: &[&str]) -> StateDict {
        let mut state = StateDict::new();
        names.iter().for_each(|name| state.push(*name, Tensor::from(0f32)));
        state
    }

    fn network(prefix: &str) -> Vec<String> {
        let names = ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"];
        names.map(|name| format!("{prefix}{name}")).to_vec()
    }

    fn of(prefixes: &[&str], more: &[&str]) -> StateDict {
        let names: Vec<String> = prefixes.iter().flat_map(|prefix| network(prefix)).collect();
        state(&names.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>())
    }

    #[test]
    fn the_place_of_a_network_is_found_by_its_names() {
        for prefix in [
            "",
            "module.",
            "encoder.",
            "backbone.",
            "net.",
            "state_dict.model.backbone.resnet.",
            "classy_state_dict.base_model.model.trunk._feature_blocks.",
        ] {
            let beside = format!("{prefix}projector.0.weight");
            let taken = take(&of(&[prefix], &[&beside, "optimizer.state.0.exp_avg"]), None).unwrap();
            assert_eq!(taken.state.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(), network(""));
            let said = taken.says(true).unwrap();
            assert!(said.contains("4 of 6 tensors") && said.contains("projector."), "{said}");
            assert!(prefix.is_empty() || said.contains(&format!("under {prefix}:")), "{said}");
        }
        assert_eq!(take(&of(&[""], &[]), None).unwrap().says(true), None);
        let said = take(&of(&[""], &["fc.weight"]), None).unwrap();
        assert_eq!(said.says(false), None);
        assert_eq!(said.says(true).unwrap(), "weights at its top: 4 of 5 tensors; left out beside them: fc.");
    }

    #[test]
    fn numbered_parts_get_torchvisions_names() {
        for first in [2, 4] {
            let number = |n: usize| format!("backbone.{}.0.conv1.weight", first + n);
            let stages: Vec<String> = (0..4).map(number).collect();
            let mut names = vec!["backbone.0.weight", "backbone.1.running_mean", "projection_head.layers.0.weight"];
            names.extend(stages.iter().map(String::as_str));
            let taken = take(&state(&names), None).unwrap();
            let found: Vec<&str> = taken.state.iter().map(|(name, _)| name).collect();
            assert_eq!(found[..3], ["conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"]);
            assert_eq!(found.len(), 6);
        }
    }

    #[test]
    fn of_two_networks_a_convention_or_the_key_decides() {
        let moco = of(&["state_dict.module.encoder_k.", "state_dict.module.encoder_q."], &["state_dict.module.queue"]);
        let said = take(&moco, None).unwrap().says(true).unwrap();
        assert!(said.contains("under state_dict.module.encoder_q.:") && said.contains("MoCo"), "{said}");
        let said = take(&moco, Some("encoder_k")).unwrap().says(true).unwrap();
        assert!(said.contains("under state_dict.module.encoder_k.:") && !said.contains("MoCo"), "{said}");
        let said = take(&of(&["backbone.", "momentum_backbone."], &[]), None).unwrap().says(true).unwrap();
        assert!(said.contains("under backbone.:") && said.contains("solo-learn"), "{said}");

        let dino = of(&["student.module.backbone.", "teacher.backbone."], &[]);
        let error = take(&dino, None).unwrap_err().to_string();
        assert!(error.contains("student.module.backbone. (4 tensors) and teacher.backbone."), "{error}");
        assert!(error.contains("--checkpoint-key teacher.backbone"), "{error}");
        for key in ["teacher", "teacher.backbone", "teacher.backbone."] {
            assert_eq!(take(&dino, Some(key)).unwrap().prefix, "teacher.backbone.", "{key}");
        }
        let error = take(&dino, Some("teach")).unwrap_err().to_string();
        assert!(error.contains("no ResNet stands under it") && error.contains("teacher.backbone."), "{error}");
        assert!(take(&dino, Some("backbone")).unwrap_err().to_string().contains("2 ResNets"));
        // The one at the top has no words.
        let both = of(&["", "ema."], &[]);
        assert!(take(&both, None).unwrap_err().to_string().contains("its top"));
        let taken = take(&both, Some("")).unwrap();
        assert!(taken.prefix.is_empty() && taken.beside.is_empty(), "{taken:?}");
    }

    #[test]
    fn what_is_no_resnet_is_named() {
        for (names, expected) in [
            (&["cls_token", "blocks.0.attn.qkv.weight"][..], "vision transformer"),
            (&["conv1.0.weight", "layer1.0.conv1.weight"], "deep stem"),
            (&["features.0.0.weight"], "features.0."),
            (&["a", "b"], "its first tensors are a, b"),
        ] {
            let error = take(&state(names), None).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("no ResNet with torchvision's names"), "{error}");
        }
    }
}
