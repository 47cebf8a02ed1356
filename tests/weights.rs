//! Encoders cross to torchvision and timm and back (`flatnce export`, `--from-pretrained`, `--checkpoint`), and to
//! onnxruntime and transformers; `flatnce inspect` says what a file holds.

#[path = "support/program.rs"]
mod program;
mod support;

use flatnce::checkpoint::{self, WeightsFile};
use flatnce::config::{OnlineProbe, OptimizerName, Pretrain};
use flatnce::model::{Encoder, HeadKind, Pass};
use flatnce::train::encoder_source::{Origin, Reading};
use program::{run_directory, said, save_dir, start, succeeds};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tch::{Device, Kind, Tensor};

fn flatnce(words: &[&str]) -> String {
    said(&succeeds(program::flatnce(words)))
}

fn refused(words: &[&str]) -> String {
    let output = start(words);
    assert_eq!(output.status.code(), Some(1), "{words:?}\n{}", said(&output));
    said(&output)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// Two steps of training, so that BatchNorm's statistics are no longer those of the beginning.
fn trained(place: &Path, model: &str, stem: &str, more: &[&str]) -> PathBuf {
    let results = place.join(format!("{model}-{stem}"));
    let (model, stem) = (format!("--model={model}"), format!("--stem={stem}"));
    let save_dir = save_dir(&results);
    let words = [
        "--dataset-name=fashion_mnist_mini",
        "--train-images=8",
        "--batch-size=4",
        "--epochs=1",
        "--warmup-epochs=0",
        "--image-size=32",
        "--optimizer=sgd",
        "--lr=0.05",
        "--precision=fp32",
        "--device=cpu",
        &model,
        &stem,
        &save_dir,
    ];
    flatnce(&[&words[..], more].concat());
    run_directory(&results).join("checkpoint_0001.pth.tar")
}

/// Images that Python makes by the same formula.
fn images() -> Tensor {
    let values: Vec<f32> = (0..2 * 3 * 32 * 32).map(|i| (0.5 + 0.5 * (0.37 * f64::from(i)).sin()) as f32).collect();
    Tensor::from_slice(&values).view([2, 3, 32, 32])
}

/// Our trunk's features of [`images`].
fn features(path: &Path) -> Vec<f64> {
    let saved = checkpoint::read(path).expect("our own file");
    let config = saved.config.expect("our own configuration");
    let encoder = Encoder::new(&config.model, HeadKind::Projection, Device::Cpu, 0);
    encoder.load(&saved.model).expect("it fits");
    let _guard = tch::no_grad_guard();
    let hidden = encoder.hidden(&images(), Pass::eval(Kind::Float));
    Vec::<f64>::try_from(hidden.to_kind(Kind::Double).contiguous().view(-1)).expect("numbers")
}

/// Runs Python and reads the JSON of its last line.
fn python(interpreter: &Path, script: &str) -> serde_json::Value {
    let mut command = Command::new(interpreter);
    command.args(["-c", script]).env("OMP_NUM_THREADS", "1").env("HF_HUB_OFFLINE", "1");
    command
        .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{script}\n{}", said(&output));
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(out.trim().lines().last().expect("a line")).expect("JSON")
}

#[test]
fn exported_encoders_load_strictly_and_give_the_same_features() {
    let Some(interpreter) = support::python("timm") else { return };
    let place = tempfile::tempdir().expect("a directory");
    let mut script = "import json, torch\nfound = []\n".to_owned();
    let mut expected = Vec::new();
    for (model, stem) in [("res10", "small"), ("res18", "small"), ("res18", "imagenet"), ("res50", "imagenet")] {
        let file = trained(place.path(), model, stem, &[]);
        for format in ["safetensors", "torchvision", "timm"] {
            let out = place.path().join(format!("{model}-{stem}.{format}"));
            let said = flatnce(&["export", "--checkpoint", text(&file), "--format", format, "--out", text(&out)]);
            // The printed lines themselves are what is run.
            script.push_str(said.split_once("it loads with\n").expect("a recipe").1);
            script.push_str(
                "
i = torch.arange(2 * 3 * 32 * 32, dtype=torch.float64)
x = (0.5 + 0.5 * torch.sin(0.37 * i)).float().reshape(2, 3, 32, 32)
mean, std = (torch.tensor(normalize[k]).view(1, 3, 1, 1) for k in ('mean', 'std'))
with torch.no_grad():
    found.append(model((x - mean) / std).flatten().tolist())
",
            );
            expected.push((format!("{model} {stem} {format}"), features(&file)));
        }
    }
    let found = python(&interpreter, &(script + "print(json.dumps(found))"));
    for ((name, ours), theirs) in expected.iter().zip(found.as_array().expect("a list")) {
        let theirs: Vec<f64> =
            theirs.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect();
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let scale = theirs.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
        let largest = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(largest < 1e-5 * scale, "{name}: {largest:e} of {scale}");
        assert!(ours.iter().any(|value| value.abs() > 0.1), "{name}: features of nothing");
    }
}

/// What other programs make of an export, held against what our Python package makes of its checkpoint.
const BESIDE: &str = "
import flatnce, json, numpy, onnx, torch, transformers
import PIL.Image
found = []
def ours(checkpoint, images):
    with torch.inference_mode():
        return flatnce.load_encoder(checkpoint)(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).numpy()
def drawn(*shape):
    return numpy.random.default_rng(3).integers(0, 256, (*shape, 3), numpy.uint8)
def compare(found, expected):
    assert found.shape == expected.shape and str(found.dtype) == 'float32', (found.shape, found.dtype)
    largest = abs(expected).max()
    error, spread = abs(found - expected).max(), abs(expected - expected.mean(1, keepdims=True)).max()
    assert error <= 1e-4 * max(1, largest) and spread > 1e-2 * largest > 1e-3, (error, spread, largest)

def check_onnx(checkpoint, path, session, images, features, sizes):
    compare(features, ours(checkpoint, images))
    for size in sizes:
        images = drawn(*size)
        compare(session.run(['features'], {'images': images})[0], ours(checkpoint, images))
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    ends = [*written.graph.input, *written.graph.output]
    shapes = [[d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim] for end in ends]
    properties = session.get_modelmeta().custom_metadata_map
    found.append([properties, shapes, written.ir_version, written.opset_import[0].version])

def check_transformers(checkpoint, path, model, processor, images, features):
    compare(features.numpy(), ours(checkpoint, numpy.stack(images)))
    pooled = lambda pixels: model(pixels).pooler_output.flatten(1).detach().numpy()
    # Of the size that the encoder was trained on: nothing is resized, and Pillow's images are as good as arrays.
    images = drawn(3, 32, 32)
    for given in [list(images), [PIL.Image.fromarray(image) for image in images]]:
        compare(pooled(processor(given, return_tensors='pt')['pixel_values']), ours(checkpoint, images))
    images = drawn(1, 224, 224)
    compare(pooled((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5), ours(checkpoint, images))
    _, about = transformers.ResNetModel.from_pretrained(path, output_loading_info=True)
    keys = {name: sorted(keys) for name, keys in about.items() if name.endswith('_keys')}
    assert len(keys) > 2 and not any(keys.values()), keys
";

#[test]
fn onnxruntime_and_transformers_have_the_features_of_pytorch() {
    let Some(interpreter) = support::python("onnxruntime").and(support::python("transformers")) else { return };
    let place = tempfile::tempdir().expect("a directory");
    let mut script = BESIDE.to_owned();
    let cases = [("res18", "small", 512), ("res18", "imagenet", 512), ("res50", "imagenet", 2048)];
    for (model, stem, _) in cases {
        let file = trained(place.path(), model, stem, &[]);
        // The lines that are printed are what is run.
        let export = |format: &str| {
            let out = place.path().join(format!("{model} {stem} {format}"));
            let format = format!("--format={format}");
            let said = flatnce(&["export", "--checkpoint", text(&file), &format, "--out", text(&out)]);
            (said.split_once("it loads with\n").expect("a recipe").1.to_owned(), out)
        };
        let (recipe, out) = export("onnx");
        let sizes = if stem == "small" {
            "(1, 32, 32), (3, 40, 24)"
        } else {
            "(1, 32, 32), (3, 32, 32), (1, 224, 224), (3, 224, 224)"
        };
        script.push_str(&format!("{recipe}check_onnx({file:?}, {out:?}, session, images, features, [{sizes}])\n"));
        if stem == "imagenet" {
            let (recipe, out) = export("huggingface");
            let call = format!("check_transformers({file:?}, {out:?}, model, processor, images, features)\n");
            script.push_str(&(recipe + &call));
        }
    }
    let found = python(&interpreter, &(script + "print(json.dumps(found))"));
    for ((model, stem, width), found) in cases.iter().zip(found.as_array().expect("a list")) {
        let expected = serde_json::json!([["batch", "height", "width", 3], ["batch", width]]);
        assert_eq!((&found[1], &found[2], &found[3]), (&expected, &8.into(), &17.into()));
        for (key, expected) in [
            ("model", *model),
            ("stem", stem),
            ("normalize_mean", "[0.5, 0.5, 0.5]"),
            ("image_size_px", "32"),
            ("objective", "flatclr"),
            ("dataset", "fashion_mnist_mini"),
            ("epoch", "1"),
            ("input", "images: uint8 [batch, height, width, 3], RGB from 0 to 255; the model normalises"),
            ("output", &format!("features: float32 [batch, {width}]")),
        ] {
            assert_eq!(found[0][key], expected, "{found}");
        }
    }
}

/// A directory takes the place of another one whole, and only where it is asked to.
#[test]
fn what_a_format_cannot_say_and_where_it_cannot_be_written_is_an_error() {
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    let small = trained(place.path(), "res10", "small", &[]);
    let file = trained(place.path(), "res10", "imagenet", &[]);
    let (out, taken) = (at("out"), at("taken"));
    let words = |file: &Path, out: &Path, format: &str, more: &[&str]| {
        let format = format!("--format={format}");
        let words = ["export", "--checkpoint", text(file), &format, "--out", text(out)];
        [&words[..], more].concat().into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    let errors = |words: Vec<String>| refused(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let writes = |words: Vec<String>| flatnce(&words.iter().map(String::as_str).collect::<Vec<_>>());

    let error = errors(words(&small, &out, "huggingface", &[]));
    assert!(error.contains("has the small stem") && error.contains("--format onnx, safetensors"), "{error}");
    assert!(!out.exists());
    std::fs::write(&taken, "precious").expect("writes");
    let error = errors(words(&file, &taken, "huggingface", &["--force"]));
    assert!(error.contains("taken is no directory") && std::fs::read(&taken).expect("reads") == b"precious", "{error}");
    let error = errors(words(&file, &taken, "onnx", &[]));
    assert!(error.contains("taken is there already") && error.contains("--force"), "{error}");
    for format in ["onnx", "huggingface"] {
        let error = errors(words(&file, &at("absent/out"), format, &[]));
        assert!(error.contains("absent does not exist"), "{error}");
    }
    let error = errors(words(&file, Path::new("/dev/full"), "onnx", &["--force"]));
    assert!(error.contains("/dev/full") && error.contains("No space left on device"), "{error}");

    // Into a directory with other files; they stay.
    std::fs::create_dir(&out).expect("a directory");
    std::fs::write(out.join("notes.txt"), "mine").expect("writes");
    writes(words(&file, &out, "huggingface", &[]));
    let names = |directory: &Path| {
        let entries =
            std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("readable").file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().expect("utf-8")).collect();
        names.sort();
        names
    };
    let whole = ["config.json", "model.safetensors", "notes.txt", "preprocessor_config.json"];
    assert_eq!(names(&out), whole);
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(out.join(name)).expect("reads")).expect("JSON")
    };
    let (config, processor) = (read("config.json"), read("preprocessor_config.json"));
    assert_eq!((&config["depths"], &config["layer_type"]), (&serde_json::json!([1, 1, 1, 1]), &"basic".into()));
    assert_eq!(processor["image_mean"], serde_json::json!([0.5, 0.5, 0.5]));
    assert_eq!(processor["crop_size"], serde_json::json!({"height": 32, "width": 32}));
    let error = errors(words(&file, &out, "huggingface", &[]));
    assert!(error.contains("out/config.json is there already") && error.contains("--force"), "{error}");
    std::fs::remove_file(out.join("config.json")).expect("removes");
    let error = errors(words(&file, &out, "huggingface", &[]));
    assert!(error.contains("out/model.safetensors is there already"), "{error}");
    writes(words(&file, &out, "huggingface", &["--force"]));
    assert_eq!(names(&out), whole);
    std::fs::remove_file(out.join("model.safetensors")).expect("removes");
    std::fs::create_dir(out.join("model.safetensors")).expect("a directory");
    let error = errors(words(&file, &out, "huggingface", &["--force"]));
    assert!(error.contains("cannot write") && error.contains("out/model.safetensors"), "{error}");
}

#[test]
fn weights_of_torchvision_and_timm_begin_a_run_and_are_evaluated() {
    let Some(interpreter) = support::python("timm") else { return };
    let place = tempfile::tempdir().expect("a directory");
    let script = format!(
        "
import json, os, timm, torch, torchvision
from safetensors.torch import save_file
os.chdir({:?})
torch.manual_seed(1)
def shaken(model):
    for buffer in model.buffers():
        if buffer.dtype == torch.float32:
            buffer.uniform_(0.5, 1.5)
    return model.state_dict()
vision = shaken(torchvision.models.resnet18())
torch.save(vision, 'plain.pth')
torch.save({{'epoch': 3, 'state_dict': {{'module.' + k: v for k, v in vision.items()}}}}, 'wrapped.pth')
torch.save(vision, 'old.pth', _use_new_zipfile_serialization=False)
save_file(shaken(timm.create_model('resnet18')), 'timm.safetensors')
torch.save({{k: v for k, v in vision.items() if 'layer4' not in k or 'conv' in k}}, 'holes.pth')
print(json.dumps('done'))
",
        text(place.path())
    );
    python(&interpreter, &script);
    let run = |file: &str, model: &str| -> Output {
        let (from, save_dir) = (
            format!("--from-pretrained={}", place.path().join(file).display()),
            format!("--save-dir={}", place.path().join(format!("{file}-results")).display()),
        );
        let words = [
            "--dataset-name=fashion_mnist_mini",
            "--train-images=8",
            "--batch-size=4",
            "--epochs=0",
            "--image-size=32",
            model,
            "--stem=imagenet",
            "--device=cpu",
            &from,
            &save_dir,
        ];
        start(&words)
    };
    for file in ["plain.pth", "wrapped.pth", "old.pth", "timm.safetensors"] {
        let output = run(file, "--model=res18");
        let said = said(&output);
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("the trunk of a res18") && said.contains("its head (2 tensors under fc.) is left out"),
            "{said}"
        );
        assert!(said.contains("it names no normalisation, so the run's is kept"), "{said}");
        let mut at = place.path().join(format!("{file}-results"));
        for _ in 0..3 {
            at = std::fs::read_dir(&at).expect("a directory").next().expect("an entry").expect("readable").path();
        }
        let began = checkpoint::read(&at.join("checkpoint_0000.pth.tar")).expect("reads").model;
        let given = checkpoint::read_weights(&place.path().join(file)).expect("reads").state;
        let mut compared = 0;
        for (name, tensor) in given.iter() {
            let name = name.trim_start_matches("state_dict.").trim_start_matches("module.");
            if name.starts_with("fc.") {
                continue;
            }
            assert!(began.get(name).is_some_and(|ours| ours.equal(tensor)), "{file}: {name}");
            compared += 1;
        }
        assert_eq!(compared, 120, "{file}");
    }
    let output = run("plain.pth", "--model=res50");
    assert!(!output.status.success());
    assert!(said(&output).contains("give --model res18 --stem imagenet"), "{}", said(&output));
    // Everything that is missing is named at once, with shapes.
    let output = run("holes.pth", "--model=res18");
    let errors = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors.contains("missing: layer4.0.bn1.weight [512]") && errors.contains("missing: layer4.1.bn2.bias [512]"),
        "{errors}"
    );

    let file = format!("--checkpoint={}", place.path().join("timm.safetensors").display());
    let save_dir = format!("--save-dir={}", place.path().join("evaluation").display());
    let said = flatnce(&[
        "--dataset-name=fashion_mnist_mini",
        "--train-mode=eval",
        "--train-images=100",
        "--image-size=32",
        "--fc-epochs=2",
        "--precision=fp32",
        "--device=cpu",
        &file,
        &save_dir,
    ]);
    assert!(
        said.contains("names no normalisation: that of torchvision's and timm's own weights (ImageNet) is taken"),
        "{said}"
    );
    assert!(said.contains("test top-1, last epoch"), "{said}");
}

/// State dicts as the projects publish them, of one ResNet-18 of torchvision's.
const LAYOUTS: &str = "
import argparse, json, os, torch, torchvision
os.chdir({place})
torch.manual_seed(2)
def shaken():
    model = torchvision.models.resnet18()
    for buffer in model.buffers():
        if buffer.dtype == torch.float32:
            buffer.uniform_(0.5, 1.5)
    return model.eval()
model, other = shaken(), shaken()
def under(prefix, model, head=True):
    return {prefix + k: v for k, v in model.state_dict().items() if head or not k.startswith('fc.')}
def mlp(prefix):
    return {prefix + '0.weight': torch.randn(4, 4), prefix + '2.weight': torch.randn(4, 4)}
moco = under('module.encoder_q.', model, False) | mlp('module.encoder_q.fc.')
moco |= under('module.encoder_k.', other, False) | mlp('module.encoder_k.fc.')
moco |= {'module.queue': torch.randn(4, 8), 'module.queue_ptr': torch.zeros(1, dtype=torch.long)}
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
sum(p.sum() for p in model.parameters()).backward()
torch.save({'epoch': 200, 'arch': 'resnet18', 'state_dict': moco, 'optimizer': optimizer.state_dict()}, 'moco.pth')
solo = under('backbone.', model, False) | under('momentum_backbone.', other, False) | mlp('projector.')
torch.save({'epoch': 9, 'pytorch-lightning_version': '1.9', 'state_dict': solo, 'hyper_parameters': {'method': 'byol'},
            'callbacks': {}, 'loops': {'n': 1}}, 'solo.ckpt')
numbered = torch.nn.Sequential(*list(model.children())[:-1])
lightly = {'backbone.' + k: v for k, v in numbered.state_dict().items()} | mlp('projection_head.layers.')
torch.save({'state_dict': lightly, 'optimizer_states': []}, 'lightly.ckpt')
trunk = under('_feature_blocks.', model, False)
torch.save({'phase_idx': 3, 'classy_state_dict': {'base_model': {'model': {'trunk': trunk, 'heads': mlp('0.')},
            'meta': {}}, 'optimizer': {}}}, 'vissl.torch')
swav = under('module.', model, False) | mlp('module.projection_head.') | {'module.prototypes.weight': torch.randn(4, 4)}
torch.save({'epoch': 1, 'state_dict': swav}, 'swav.pth.tar')
torch.save({'student': under('module.backbone.', other, False), 'teacher': under('backbone.', model, False),
            'args': argparse.Namespace(arch='resnet18')}, 'dino.pth')
for name, key in [('a', 'model_state_dict'), ('b', 'net'), ('c', 'encoder')]:
    torch.save({key: under('model.encoder.', model), 'optimizer': optimizer.state_dict()}, f'{name}.pt')
torch.save({'model': {'state': {'resnet.net.' + k: v for k, v in model.state_dict().items()}}}, 'deep.pt')
torch.save({'cls_token': torch.zeros(1, 1, 8), 'blocks.0.attn.qkv.weight': torch.zeros(24, 8)}, 'vit.pth')
i = torch.arange(2 * 3 * 32 * 32, dtype=torch.float64)
x = (0.5 + 0.5 * torch.sin(0.37 * i)).float().reshape(2, 3, 32, 32)
mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
model.fc = torch.nn.Identity()
with torch.no_grad():
    print(json.dumps(model((x - mean) / std).flatten().tolist()))
";

#[test]
fn checkpoints_of_other_projects_give_torchvisions_features() {
    let Some(interpreter) = support::python("torchvision") else { return };
    let place = tempfile::tempdir().expect("a directory");
    let script = LAYOUTS.replace("{place}", &format!("{:?}", text(place.path())));
    let found = python(&interpreter, &script);
    let expected: Vec<f64> = serde_json::from_value(found).expect("numbers");
    let scale = expected.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
    for (file, key, said) in [
        ("moco.pth", None, "under state_dict.module.encoder_q.: 120 of"),
        ("solo.ckpt", None, "under state_dict.backbone.: 120 of 242 tensors; backbone is what solo-learn trains"),
        ("lightly.ckpt", None, "under state_dict.backbone.: 120 of 122"),
        ("vissl.torch", None, "under classy_state_dict.base_model.model.trunk._feature_blocks.: 120 of 122"),
        ("swav.pth.tar", None, "left out beside them: projection_head., prototypes."),
        ("dino.pth", Some("teacher"), "under teacher.backbone.: 120 of 240"),
        ("a.pt", None, "under model_state_dict.model.encoder.: 120 of"),
        ("b.pt", None, "under net.model.encoder.: 120 of"),
        ("c.pt", None, "left out beside them: fc."),
        ("deep.pt", None, "under model.state.resnet.net.: 120 of 122"),
    ] {
        let path = place.path().join(file);
        let reading = Reading { key, images: None };
        let source = Origin::File(path.clone()).open(reading, &mut |text| panic!("{text}")).expect(file);
        let taken = source.taken.as_deref().unwrap_or_default();
        assert!(taken.contains(said), "{file}: {taken}");
        assert!(source.assumed.as_deref().is_some_and(|text| text.contains("ImageNet")), "{file}");
        let encoder = source.build(HeadKind::Classifier(1), Device::Cpu, 0).expect(file);
        let _guard = tch::no_grad_guard();
        let hidden = encoder.hidden(&images(), Pass::eval(Kind::Float)).to_kind(Kind::Double).contiguous().view(-1);
        let ours = Vec::<f64>::try_from(hidden).expect("numbers");
        assert_eq!(ours.len(), expected.len(), "{file}");
        let largest = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(largest < 1e-5 * scale, "{file}: {largest:e} of {scale}");
    }
    let (dino, vit) = (place.path().join("dino.pth"), place.path().join("vit.pth"));
    let out = place.path().join("out.safetensors");
    let errors = refused(&["export", "--checkpoint", text(&dino), "--out", text(&out)]);
    assert!(errors.contains("student.module.backbone. (120 tensors) and teacher.backbone. (120"), "{errors}");
    let said = flatnce(&["export", "--checkpoint", text(&dino), "--checkpoint-key=teacher", "--out", text(&out)]);
    assert!(said.contains("weights under teacher.backbone.") && out.exists(), "{said}");
    let said = flatnce(&["inspect", text(&place.path().join("moco.pth"))]);
    assert!(said.contains("res18 with the imagenet stem; weights under state_dict.module.encoder_q."), "{said}");
    let errors = refused(&["export", "--checkpoint", text(&vit), "--out", text(&out), "--force"]);
    assert!(errors.contains("a vision transformer, it seems") && errors.contains("blocks.0.attn"), "{errors}");
    let moco = format!("--from-pretrained={}", place.path().join("moco.pth").display());
    let words = ["--dataset-name=fashion_mnist_mini", "--model=res18", "--stem=imagenet", "--dry-run", "--device=cpu"];
    let words = [&words[..], &["--batch-size=4", "--train-images=8", &moco, "--checkpoint-key=encoder_k"]].concat();
    assert!(flatnce(&words).contains("weights under state_dict.module.encoder_k."));
}

#[test]
fn an_export_is_evaluated_as_its_checkpoint_is() {
    let place = tempfile::tempdir().expect("a directory");
    let file = trained(place.path(), "res10", "small", &[]);
    let out = place.path().join("encoder.safetensors");
    flatnce(&["export", "--checkpoint", text(&file), "--out", text(&out)]);
    let taken = refused(&["export", "--checkpoint", text(&file), "--out", text(&out)]);
    assert!(taken.contains("encoder.safetensors is there already") && taken.contains("--force"), "{taken}");
    flatnce(&["export", "--checkpoint", text(&file), "--out", text(&out), "--force"]);

    let weights = checkpoint::read_weights(&out).expect("reads");
    let WeightsFile::Safetensors(notes) = &weights.file else { panic!("{:?}", weights.file) };
    assert_eq!((notes["model"].as_str(), notes["normalize_mean"].as_str()), ("res10", "[0.5, 0.5, 0.5]"));
    assert!(weights.state.iter().all(|(name, _)| !name.starts_with("fc.") && !name.starts_with("normalize.")));

    let results = |name: &str, of: &Path| {
        let save_dir = place.path().join(name);
        let words = [
            "--dataset-name=fashion_mnist_mini".to_owned(),
            "--train-mode=eval".to_owned(),
            "--train-images=200".to_owned(),
            "--fc-epochs=3".to_owned(),
            "--precision=fp32".to_owned(),
            "--device=cpu".to_owned(),
            format!("--checkpoint={}", of.display()),
            format!("--save-dir={}", save_dir.display()),
        ];
        let said = flatnce(&words.iter().map(String::as_str).collect::<Vec<_>>());
        said.lines().filter(|line| line.starts_with("| ")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(results("of-checkpoint", &file), results("of-export", &out));
}

#[test]
fn inspect_tells_what_a_file_holds_and_what_is_wrong_with_it() {
    let place = tempfile::tempdir().expect("a directory");
    let file = trained(place.path(), "res10", "small", &["--clr=simclr"]);
    let table = flatnce(&["inspect", text(&file)]);
    for expected in ["pre-training checkpoint of flatnce", "simclr", "fashion_mnist_mini", "whole (every record"] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
    let row = table.lines().find(|line| line.contains("model_state_dict.layer4.0.conv2.weight ")).expect("a row");
    assert!(row.contains("[512, 512, 3, 3]") && row.contains("float32"), "{row}");
    let json: serde_json::Value = serde_json::from_str(&flatnce(&["inspect", text(&file), "--json"])).expect("JSON");
    assert_eq!(json["facts"]["steps_done"], 2);
    assert_eq!(json["facts"]["optimiser"], "sgd");
    let tensors = json["tensors"].as_array().expect("a list");
    let named = |name: &str| tensors.iter().find(|t| t["name"] == name).expect("a tensor");
    assert_eq!(named("model_state_dict.fc.linear_layers.net.2.weight")["shape"], serde_json::json!([128, 512]));
    assert_eq!(named("optimizer.state.0.momentum_buffer")["not_finite"], 0);
    assert_eq!(json["other_entries"]["scheduler.last_epoch"], 2);

    // Of a run's directory the newest checkpoint that is whole.
    let directory = file.parent().expect("a directory");
    assert_eq!(flatnce(&["inspect", text(directory)]), table);
    std::fs::write(directory.join("checkpoint_0007.pth.tar"), "cut off").expect("writes");
    let newest = flatnce(&["inspect", text(directory)]);
    assert!(newest.starts_with(&table), "{newest}");
    assert!(newest.contains("warning: ") && newest.contains("checkpoint_0007.pth.tar is passed over"), "{newest}");
    let json = succeeds(program::flatnce(&["inspect", text(directory), "--json"])).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["file"], text(&file));
    assert!(refused(&["inspect", text(place.path())]).contains("holds no checkpoint"));

    let mut bytes = std::fs::read(&file).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = place.path().join("damaged.pth.tar");
    std::fs::write(&damaged, &bytes).expect("writes");
    let errors = refused(&["inspect", text(&damaged)]);
    assert!(errors.contains("damaged.pth.tar, record ") && errors.contains("checksum"), "{errors}");
    assert!(refused(&["inspect", text(&place.path().join("absent"))]).contains("absent"));
    std::fs::write(&damaged, "no checkpoint").expect("writes");
    assert!(refused(&["inspect", text(&damaged)]).contains("unknown kind"));
    assert!(refused(&["export", "--checkpoint", text(&damaged), "--out", "x"]).contains("unknown kind"));
}

/// The settings of a checkpoint are anybody's: what no flag can ask for is refused wherever the file is read.
#[test]
fn settings_in_a_checkpoint_have_the_ranges_of_flags() {
    let place = tempfile::tempdir().expect("a directory");
    let file = trained(place.path(), "res10", "small", &["--ess-target=0.5", "--keep-last=9"]);
    let directory = place.path().join("edited");
    std::fs::create_dir(&directory).expect("creates");
    let edited = directory.join("checkpoint_0001.pth.tar");
    type Edit = fn(&mut Pretrain);
    let cases: [(Edit, &str); 18] = [
        (|run| run.grad_cache = 0, "grad_cache is 0; it has to be a whole number of 1 or more"),
        (|run| run.grad_cache = 5, "grad_cache 5 is above batch_size 4"),
        (|run| run.online_knn.as_mut().expect("it has").knn.neighbours = 0, "online_knn.knn.neighbours is 0"),
        (|run| run.online_knn.as_mut().expect("it has").every_epochs = 0, "online_knn.every_epochs is 0"),
        (|run| run.online_probe = Some(OnlineProbe { every_epochs: 0 }), "online_probe.every_epochs is 0"),
        (|run| run.data.image_size_px = 0, "data.image_size_px is 0; it has to be a whole number from 8 to 1024"),
        (|run| run.model.head.layers = 4_000_000_000, "model.head.layers is 4000000000"),
        (|run| run.model.head.out_dim = 0, "model.head.out_dim is 0"),
        (|run| run.model.normalisation.std[2] = 0.0, "model.normalisation.std[2] is 0"),
        (|run| run.temperature = -1.0, "temperature is -1.0; it has to be a number above 0"),
        (|run| run.ess_target = Some(1.5), "ess_target is 1.5"),
        (|run| run.optimizer.momentum = -5.0, "optimizer.momentum is -5.0"),
        (|run| run.optimizer.lr = 0.0, "optimizer.lr is 0"),
        (|run| run.optimizer.name = OptimizerName::Lbfgs, "optimizer.name is LBFGS"),
        (|run| run.augmentation.flip_prob = 7.0, "augmentation.flip_prob is 7.0; it has to be a number from 0 to 1"),
        (|run| run.augmentation.crop_scale_max = 0.01, "crop_scale_min 0.08 is above crop_scale_max 0.01"),
        (|run| run.checkpoints.keep_last = Some(0), "checkpoints.keep_last is 0"),
        (|run| run.batch_size = 1, "batch_size is 1"),
    ];
    for (edit, expected) in cases {
        let mut saved = checkpoint::read(&file).expect("our own file");
        edit(saved.config.as_mut().expect("our own settings"));
        checkpoint::write(&edited, &saved).expect("writes");
        for error in [checkpoint::read(&edited).err(), checkpoint::read_weights(&edited).err()] {
            let error = format!("{:#}", error.expect(expected));
            assert!(error.contains("edited/checkpoint_0001.pth.tar") && error.contains(expected), "{error}");
        }
    }
    // As the program says it, of the last one.
    let output = start(&["--resume", text(&directory), "--epochs=2"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("none of the 1 checkpoints") && said(&output).contains("batch_size is 1"));
    let errors = refused(&["export", "--checkpoint", text(&edited), "--out", text(&place.path().join("out"))]);
    assert!(errors.contains("batch_size is 1") && !errors.contains("panicked"), "{errors}");

    let mut saved = checkpoint::read(&file).expect("our own file");
    saved.temperature = Some(vec![-0.5, 0.1]);
    checkpoint::write(&edited, &saved).expect("writes");
    let error = format!("{:#}", checkpoint::read(&edited).expect_err("no temperature"));
    assert!(error.contains("temperature begins with Some(-0.5)"), "{error}");
}

/// What PyTorch's strict load would refuse, or load as rubbish, is not written.
#[test]
fn an_export_is_a_whole_network_or_an_error() {
    let place = tempfile::tempdir().expect("a directory");
    let file = trained(place.path(), "res10", "small", &[]);
    let whole = checkpoint::read(&file).expect("our own file").model;
    let (given, out) = (place.path().join("given.pth"), place.path().join("out.pth"));
    let with = |name: &str, tensor: Option<Tensor>| {
        let mut state = flatnce::state::StateDict::new();
        for (own, value) in whole.iter() {
            match &tensor {
                _ if own != name => state.push(own, value.shallow_clone()),
                Some(tensor) => state.push(own, tensor.shallow_clone()),
                None => {}
            }
        }
        checkpoint::write_state_dict(&given, &state).expect("writes");
    };
    let options = (Kind::Float, Device::Cpu);
    let mut nan = Tensor::zeros([64], options);
    let _ = nan.fill_(f64::NAN);
    let export = ["export", "--checkpoint", text(&given), "--format=torchvision", "--out", text(&out), "--force"];
    for (name, tensor, expected) in [
        ("bn1.bias", None, "missing: bn1.bias [64]"),
        ("bn1.bias", Some(Tensor::zeros([63], options)), "wrong shape: bn1.bias"),
        ("bn1.bias", Some(nan), "unusable: bn1.bias holds a number that is not finite"),
        ("bn1.running_var", Some(Tensor::full([64], -1.0, options)), "bn1.running_var holds a variance below 0"),
        (
            "conv1.weight",
            Some(Tensor::ones([64, 3, 3, 3], (Kind::Int8, Device::Cpu))),
            "conv1.weight has whole numbers",
        ),
        ("normalize.std", Some(Tensor::zeros([3], options)), "normalize.std holds a standard deviation"),
        (
            "bn1.num_batches_tracked",
            Some(Tensor::zeros([5], (Kind::Int64, Device::Cpu))),
            "wrong shape: bn1.num_batches",
        ),
        ("bn1.num_batches_tracked", Some(Tensor::from(-3i64)), "bn1.num_batches_tracked is no count"),
        ("fc.linear_layers.net.2.weight", Some(Tensor::from(1f32)), "fc.linear_layers.net.2.weight is []"),
    ] {
        with(name, tensor);
        let errors = refused(&export);
        assert!(errors.contains(expected) && errors.contains("given.pth"), "{name}: {errors}");
        assert!(!errors.contains("panicked") && !out.exists(), "{name}: {errors}");
    }
    // A counter that PyTorch before 0.4.1 did not write is there for a strict load.
    with("bn1.num_batches_tracked", None);
    flatnce(&export);
    let written = checkpoint::read_weights(&out).expect("reads").state;
    let counter = written.get("bn1.num_batches_tracked").expect("it is complete");
    assert_eq!((counter.kind(), counter.size()), (Kind::Int64, vec![]));

    let absent = place.path().join("absent/out.pth");
    let errors = refused(&["export", "--checkpoint", text(&file), "--out", text(&absent)]);
    assert!(errors.contains("absent does not exist") && !errors.contains("make room"), "{errors}");
}

/// Nothing waits for the other end of a FIFO, and no device is read to its end.
#[test]
fn only_regular_files_are_checkpoints() {
    let place = tempfile::tempdir().expect("a directory");
    let (fifo, zeros) = (place.path().join("fifo"), place.path().join("zeros"));
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("it starts").success());
    std::os::unix::fs::symlink("/dev/zero", &zeros).expect("links");
    for (file, kind) in [(&fifo, "a FIFO"), (&zeros, "a device")] {
        let out = place.path().join("out");
        for words in [
            vec!["inspect", text(file)],
            vec!["export", "--checkpoint", text(file), "--out", text(&out)],
            // Small, so that whatever memory the machine has suffices.
            vec![
                "--dataset-name=fashion_mnist_mini",
                "--model=res10",
                "--batch-size=8",
                "--epochs=0",
                "--from-pretrained",
                text(file),
                "--dry-run",
            ],
            vec!["--dataset-name=fashion_mnist_mini", "--train-mode=eval", "--checkpoint", text(file), "--dry-run"],
        ] {
            let errors = refused(&words);
            assert!(errors.contains(kind) && errors.contains(text(file)), "{words:?}: {errors}");
        }
    }
}
