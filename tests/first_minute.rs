//! What a newcomer meets first: the program without a word, images without a data set's name, a batch larger than the
//! images, and what the program says of itself (`list`, `completions`, `man`).

#[path = "support/program.rs"]
mod program;
mod support;

use flatnce::checkpoint;
use flatnce::cli;
use flatnce::config::{DataConfig, DatasetName, Depth, HeadConfig, HeadMode, ModelConfig, Normalisation, Stem};
use flatnce::data::{self, Part};
use flatnce::model::{Encoder, HeadKind};
use program::said;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// The program in a directory.
fn run(place: &Path, words: &[&str]) -> Output {
    program::flatnce(words).current_dir(place).output().expect("it starts")
}

/// What it prints on standard output when it ends well.
fn printed(place: &Path, words: &[&str]) -> String {
    let output = run(place, words);
    assert!(output.status.success(), "{words:?}\n{}", said(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// A small picture at each of these places.
fn pictures(place: &Path, names: &[&str]) {
    for (number, name) in names.iter().enumerate() {
        let path = place.join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("it is made");
        let picture = image::RgbImage::from_fn(40, 40, |x, y| image::Rgb([x as u8 * 6, y as u8 * 6, number as u8]));
        picture.save(path).expect("it is written");
    }
}

// Without a word.

#[test]
fn the_program_alone_shows_the_short_help_and_three_commands_to_paste() {
    let place = tempfile::tempdir().expect("a directory");
    let output = run(place.path(), &[]);
    let help = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{help}");
    assert_eq!(help, printed(place.path(), &["-h"]), "the short help");
    assert_eq!(std::fs::read_dir(place.path()).expect("a directory").count(), 0);

    let (_, commands) = help.split_once("First commands, ").expect("commands");
    let commands = commands.replace("\\\n", " ");
    let commands: Vec<Vec<&str>> = commands
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|words: &Vec<&str>| words.first() == Some(&"flatnce"))
        .collect();
    let [look, train, every] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(every[1..], ["--help"]);
    pictures(&place.path().join("photos"), &["a.png", "b.png", "c.png", "d.png"]);
    printed(place.path(), &look[1..]);
    assert!(place.path().join("views.png").is_file());
    let plan = printed(place.path(), &[&train[1..], &["--dry-run"]].concat());
    assert!(plan.contains("folder train: 4 image files") && plan.contains("res18"), "{plan}");
}

// Images and no data set's name.

/// The command in the last line of an error, without the program.
fn command_in(errors: &str) -> Vec<&str> {
    errors.trim_end().lines().last().expect("a line").split_whitespace().skip(1).collect()
}

#[test]
fn images_without_a_data_sets_name_are_asked_about_and_the_answers_can_be_pasted() {
    let place = tempfile::tempdir().expect("a directory");
    pictures(&place.path().join("photos"), &["a.png", "b.png", "c.png", "cats/d.png", "cats/e.png"]);
    let rest = ["--image-size=32", "--model=res10", "--device=cpu", "--dry-run"];
    for given in [&["--data", "photos"][..], &["--data=photos/b.png"], &["--data", "photos/a.png"]] {
        let output = run(place.path(), &[given, &rest].concat());
        let errors = said(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(
            errors.contains("holds no ImageNet") && errors.contains("was --dataset-name folder meant?"),
            "{errors}"
        );
        let command = command_in(&errors);
        assert!(command.contains(&"--data=photos") || command.windows(2).any(|two| two == ["--data", "photos"]));

        // Five images are less than the paper's batch; what that error names works.
        let output = run(place.path(), &command);
        let errors = said(&output);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("5 images, fewer than one batch of --batch-size 512"), "{errors}");
        let (_, fits) = errors.rsplit_once("--batch-size ").expect("a batch that works");
        let batch = format!("--batch-size={}", fits.split_whitespace().next().expect("a number"));
        let plan = printed(place.path(), &[&command[..], &[batch.as_str()]].concat());
        assert!(plan.contains("folder train: 5 image files"), "{plan}");
    }
    let views = run(place.path(), &["preview", "--data", "photos"]);
    assert_eq!(views.status.code(), Some(2), "{}", said(&views));
    printed(place.path(), &command_in(&said(&views)));
    assert!(place.path().join("views.png").is_file());
}

#[test]
fn what_lies_in_a_place_is_what_is_asked_for() {
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    pictures(&at("my photos"), &["a.png"]);
    pictures(&at("net"), &["train/n01440764/a.png", "val/n01440764/b.png"]);
    for (directory, file) in [("packed", "a.tar"), ("arrays", "a.npz"), ("rows", "a.parquet"), ("texts", "a.txt")] {
        std::fs::create_dir(at(directory)).expect("it is made");
        std::fs::write(at(directory).join(file), "").expect("it is written");
    }
    // Weights that do not say what they were trained on.
    let head = HeadConfig { mode: HeadMode::None, layers: 0, out_dim: 0 };
    let normalisation = Normalisation::of(DatasetName::Cifar10);
    let model = ModelConfig { depth: Depth::Res10, stem: Stem::Small, normalisation, head };
    let weights = Encoder::new(&model, HeadKind::Classifier(2), tch::Device::Cpu, 0).state_dict();
    checkpoint::write_safetensors(&at("x"), &weights, &Default::default()).expect("it is written");
    let eval = ["--train-mode=eval", "--checkpoint=x"];
    let transfer = ["--train-mode=transfer", "--checkpoint=x", "--transfer-dataset-name=voc"];
    for (words, asked) in [
        (&["--data", "my photos"][..], Some("folder")),
        (&["--data", "packed"], Some("shards")),
        (&["--data", "arrays/a.npz"], Some("npz")),
        (&["--data", "rows"], Some("parquet")),
        (&[&["--data", "my photos"][..], &eval].concat(), Some("folder")),
        (&["embed", "--data=my photos", "--checkpoint=x", "--part=train", "--out=y"], Some("folder")),
        // Nothing that is known, ImageNet, a data set that is named, another flag that names it.
        (&["--data", "texts"], None),
        (&["--data", "absent"], None),
        (&["--data", "net"], None),
        (&["--data", "my photos", "--dataset-name", "cifar10"], None),
        (&[&["--data", "my photos"][..], &transfer].concat(), None),
        (&["--resume", "absent", "--data", "my photos"], None),
    ] {
        let dry = if words[0] == "embed" { &[][..] } else { &["--dry-run", "--model=res10"] };
        let errors = said(&run(place.path(), &[words, dry].concat()));
        let question = asked.map(|dataset| format!("was --dataset-name {dataset} meant?"));
        match question {
            Some(question) => assert!(errors.contains(&question), "{words:?}: {errors}"),
            None => assert!(!errors.contains("meant?"), "{words:?}: {errors}"),
        }
        // A shell reads the name back.
        if words.contains(&"my photos") && asked.is_some() {
            assert!(errors.contains("--data 'my photos'"), "{errors}");
        }
    }
}

// A batch larger than the images.

#[test]
fn a_batch_larger_than_the_images_is_told_which_one_to_take() {
    let place = tempfile::tempdir().expect("a directory");
    for (images, batch, fits) in [
        ("300", "512", "--batch-size 64 makes 4 batches an epoch"),
        ("8", "9", "--batch-size 2 makes 4 batches an epoch"),
        ("2", "3", "--batch-size 2 makes 1 batch an epoch"),
    ] {
        let words = ["--dataset-name=fashion_mnist_mini", "--model=res10", "--dry-run"];
        let output = run(place.path(), &[&words[..], &["--train-images", images, "--batch-size", batch]].concat());
        let errors = said(&output);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(&format!("{images} images, fewer than one batch of --batch-size {batch}")), "{errors}");
        assert!(errors.contains(fits), "{errors}");
    }
}

// Lists.

fn listed(what: &str) -> Vec<Value> {
    let place = tempfile::tempdir().expect("a directory");
    serde_json::from_str(&printed(place.path(), &["list", what, "--json"])).expect("JSON")
}

#[test]
fn models_are_listed_with_their_weights() {
    let models = listed("models");
    assert_eq!(models.iter().map(|model| model["name"].as_str().expect("text")).collect::<Vec<_>>(), Depth::NAMES);
    // Those of torchvision's networks without their classifiers.
    let torchvision = [11_176_512, 21_284_672, 23_508_032, 42_500_160, 58_143_808];
    for (model, weights) in models[1..].iter().zip(torchvision) {
        assert_eq!(model["weights"], weights, "{model}");
    }
    let facts = |name: &str| models.iter().find(|model| model["name"] == name).expect("a model");
    assert_eq!((&facts("res10")["layers"], &facts("res10")["features"]), (&10.into(), &512.into()));
    assert_eq!((&facts("res152")["layers"], &facts("res152")["features"]), (&152.into(), &2048.into()));
    // And those of ours.
    for (depth, stem, key) in [
        (Depth::Res10, Stem::Imagenet, "weights"),
        (Depth::Res10, Stem::Small, "weights_small_stem"),
        (Depth::Res50, Stem::Small, "weights_small_stem"),
    ] {
        let head = HeadConfig { mode: HeadMode::Nonlinear, layers: 2, out_dim: 128 };
        let config = ModelConfig { depth, stem, normalisation: Normalisation::of(DatasetName::Cifar10), head };
        let encoder = Encoder::new(&config, HeadKind::Projection, tch::Device::Cpu, 0);
        let trunk = encoder.parameters().into_iter().filter(|parameter| !parameter.name.starts_with("fc."));
        assert_eq!(facts(depth.name())[key], trunk.map(|parameter| parameter.tensor.numel()).sum::<usize>());
    }
}

#[test]
fn data_sets_are_listed_with_classes_and_sizes() {
    let sets = listed("datasets");
    assert_eq!(sets.iter().map(|set| set["name"].as_str().expect("text")).collect::<Vec<_>>(), DatasetName::NAMES);
    let facts = |name: &str| sets.iter().find(|set| set["name"] == name).expect("a data set");
    let embedded = data::load(&DataConfig::new(DatasetName::FashionMnistMini, "none", 32), Part::Train).expect("it is");
    assert_eq!(facts("fashion_mnist_mini")["classes"], embedded.classes.len());
    assert_eq!((&facts("cifar100")["classes"], &facts("cifar100")["image_size_px"]), (&100.into(), &32.into()));
    assert_eq!((&facts("imagenet")["classes"], &facts("imagenet")["fixed_size"]), (&1000.into(), &false.into()));
    assert!(facts("folder")["classes"].is_null());
    assert!(facts("cifar10")["from"].as_str().expect("text").contains("get_data.sh cifar10"));
}

#[test]
fn flags_are_listed_with_values_defaults_and_readers() {
    let flags = listed("flags");
    let names: Vec<&str> = flags.iter().map(|flag| flag["name"].as_str().expect("text")).collect();
    let command = cli::command();
    let all: Vec<String> = command.get_arguments().filter_map(|arg| arg.get_long()).map(|n| format!("--{n}")).collect();
    assert!(all.len() > 80 && all.iter().all(|name| names.contains(&name.as_str())) && names.len() == all.len());
    let facts = |name: &str| flags.iter().find(|flag| flag["name"] == name).expect("a flag");
    assert_eq!(facts("--clr")["values"], serde_json::json!(["simclr", "flatclr"]));
    assert_eq!((&facts("--batch-size")["default"], &facts("--batch-size")["value"]), (&"512".into(), &"IMAGES".into()));
    assert_eq!(facts("--epochs")["modes"], serde_json::json!(["ssl", "eval"]));
    assert_eq!(facts("--blur")["tools"], serde_json::json!(["preview"]));
    assert_eq!(facts("--data")["tools"], serde_json::json!(["preview", "embed", "pack"]));
    let place = tempfile::tempdir().expect("a directory");
    for what in ["models", "datasets", "flags"] {
        let table = printed(place.path(), &["list", what]);
        assert_eq!(table.lines().count(), 1 + listed(what).len(), "{table}");
        assert!(table.lines().all(|line| line.chars().count() < 240), "{table}");
    }
}

// Completions and the manual.

#[test]
fn shells_complete_flags_and_values() {
    let place = tempfile::tempdir().expect("a directory");
    let script = printed(place.path(), &["completions", "bash"]);
    std::fs::write(place.path().join("flatnce.bash"), script).expect("it is written");
    // As bash calls it: the program, the word so far, the word before.
    let completed = |line: &str, so_far: &str, before: &str| {
        let words = line.split_whitespace().chain([so_far]).map(|word| format!("'{word}'")).collect::<Vec<_>>();
        let script = format!(
            "source ./flatnce.bash; COMP_WORDS=({}); COMP_CWORD={}; _flatnce flatnce '{so_far}' '{before}'; echo \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words.len() - 1
        );
        let output = Command::new("bash").args(["-c", &script]).current_dir(place.path()).output().expect("bash");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
        said(&output).trim().to_owned()
    };
    assert_eq!(completed("flatnce --clr", "", "--clr"), "simclr flatclr");
    assert_eq!(completed("flatnce", "--warm", "flatnce"), "--warmup-epochs");
    assert_eq!(completed("flatnce", "doc", "flatnce"), "doctor");
    assert_eq!(completed("flatnce export", "--form", "export"), "--format");
    assert_eq!(completed("flatnce export --format", "ti", "--format"), "timm");
    let zsh = printed(place.path(), &["completions", "zsh"]);
    assert!(zsh.starts_with("#compdef flatnce") && zsh.contains("--warmup-epochs="), "{zsh}");
    let fish = printed(place.path(), &["completions", "fish"]);
    assert!(fish.contains("complete -c flatnce") && fish.contains("-l warmup-epochs"), "{fish}");
    let errors = said(&run(place.path(), &["completions", "tcsh"]));
    assert!(errors.contains("bash, zsh, fish"), "{errors}");
}

#[test]
fn the_manual_has_a_page_of_the_program_and_of_every_tool() {
    let place = tempfile::tempdir().expect("a directory");
    // Roff spells a hyphen that is no place to break a line so.
    let plain = |page: &str| page.replace("\\-", "-");
    let page = printed(place.path(), &["man"]);
    assert!(page.contains(".TH flatnce 1") && plain(&page).contains("--warmup-epochs"), "{page}");
    printed(place.path(), &["man", "--out", "share/man1"]);
    let written = |name: &str| std::fs::read_to_string(place.path().join("share/man1").join(name)).expect(name);
    assert_eq!(written("flatnce.1").trim_end(), page.trim_end());
    for tool in cli::command().get_subcommands() {
        let page = written(&format!("flatnce-{}.1", tool.get_name()));
        assert!(plain(&page).contains(&format!(".TH flatnce-{} 1", tool.get_name())), "{page}");
    }
}
