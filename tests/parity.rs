//! The model, the objectives and the optimisers against PyTorch: fixtures under
//! `tests/golden/`, each beside the script that made it.

use flatnce::config::*;
use flatnce::loss::{anchors, contrast, contrast_in_chunks, normalise};
use flatnce::model::{Encoder, HeadKind, Pass};
use flatnce::optim::{self, Rate};
use flatnce::state::{Parameter, Role};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect("fixture is there")).expect("fixture is JSON")
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("array").iter().map(|v| v.as_f64().expect("number")).collect()
}

fn to_vec(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.detach().to_kind(Kind::Double).contiguous().view(-1)).expect("a vector")
}

/// The largest difference over the largest magnitude.
fn relative_error(got: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    assert!(got.iter().all(|x| x.is_finite()));
    let scale = wanted.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    got.iter().zip(wanted).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / scale
}

/// Numbers in `offset` ± `scale` that look random; the same as in `tests/golden/model/make.py`.
fn formula(n: usize, salt: usize, scale: f64, offset: f64) -> Tensor {
    let value = |i: usize| {
        let noise = (12.9898 * i as f64 + 78.233 * salt as f64).sin() * 43758.5453;
        (offset + scale * (2.0 * (noise - noise.floor()) - 1.0)) as f32
    };
    Tensor::from_slice(&(0..n).map(value).collect::<Vec<f32>>())
}

fn model_config(depth: &str, stem: &str, head: &str) -> ModelConfig {
    ModelConfig {
        depth: Depth::parse(depth).expect("depth"),
        stem: Stem::parse(stem).expect("stem"),
        normalisation: Normalisation::of(DatasetName::Cifar10),
        head: HeadConfig { mode: HeadMode::parse(head).expect("head"), layers: 2, out_dim: 16 },
    }
}

/// The weights of `tests/golden/model/make.py`.
fn fill(encoder: &Encoder) {
    let _guard = tch::no_grad_guard();
    for (salt, (name, tensor)) in encoder.state_dict().iter().enumerate() {
        let (shape, n) = (tensor.size(), tensor.numel());
        if name.starts_with("normalize") || name.ends_with("num_batches_tracked") {
            continue;
        }
        let value = match shape.len() {
            4 => formula(n, salt, 2.0 / ((shape[0] * shape[2] * shape[3]) as f64).sqrt(), 0.0),
            2 => formula(n, salt, 1.0 / (shape[1] as f64).sqrt(), 0.0),
            _ if name.ends_with("running_var") => formula(n, salt, 0.5, 1.0),
            _ if name.ends_with("weight") => formula(n, salt, 0.3, 0.8),
            _ => formula(n, salt, 0.1, 0.0),
        };
        tensor.shallow_clone().copy_(&value.view(shape.as_slice()));
    }
}

#[test]
fn every_depth_stem_and_head_computes_what_torchvision_computes() {
    let _guard = tch::no_grad_guard();
    for case in fixture("model/model.json").as_array().expect("cases") {
        let text = |key: &str| case[key].as_str().expect("text");
        let label = format!("{} {} {}", text("depth"), text("stem"), text("head"));
        let config = model_config(text("depth"), text("stem"), text("head"));
        let encoder = Encoder::new(&config, HeadKind::Projection, Device::Cpu, 1);
        fill(&encoder);
        let (images, side) = (case["images"].as_i64().expect("count"), case["side"].as_i64().expect("side"));
        let x = formula((images * 3 * side * side) as usize, 5, 0.5, 0.5).view([images, 3, side, side]);
        let (eval, train) = (Pass::eval(Kind::Float), Pass::train(Kind::Float));
        for (mode, pass) in [("eval", eval), ("train", train), ("after", eval)] {
            let out = encoder.forward(&x, pass);
            let hidden = relative_error(&to_vec(&out.hidden.slice(1, 0, None, 64)), &floats(&case[mode]["hidden"]));
            let projected = relative_error(&to_vec(&out.projected), &floats(&case[mode]["projected"]));
            // In training mode BatchNorm over few values amplifies rounding, layer by layer.
            let bound = if mode == "eval" { 1e-4 } else { 1e-2 };
            assert!(hidden < bound && projected < bound, "{label} {mode}: {hidden:e} {projected:e}");
        }
        if let Some(names) = case.get("names") {
            let state = encoder.state_dict();
            let wanted: Vec<(String, Vec<i64>)> = serde_json::from_value(names.clone()).expect("names");
            let got: Vec<_> = state.iter().map(|(n, t)| (n.to_owned(), t.size())).collect();
            assert_eq!(got, wanted, "{label}");
        }
    }
}

#[test]
fn bf16_stays_close_to_fp32_and_features_come_out_in_fp32() {
    let _guard = tch::no_grad_guard();
    let encoder = Encoder::new(&model_config("res10", "small", "nonlinear"), HeadKind::Projection, Device::Cpu, 1);
    let x = formula(8 * 3 * 32 * 32, 5, 0.5, 0.5).view([8, 3, 32, 32]);
    let full = encoder.forward(&x, Pass::train(Kind::Float));
    let low = encoder.forward(&x, Pass::train(Kind::BFloat16));
    assert_eq!((low.hidden.kind(), low.projected.kind()), (Kind::Float, Kind::Float));
    let error = relative_error(&to_vec(&low.hidden), &to_vec(&full.hidden));
    assert!(error > 0.0 && error < 0.05, "{error}");
}

#[test]
fn a_seed_fixes_the_weights_and_they_have_pytorchs_variances() {
    let config = model_config("res18", "small", "nonlinear");
    let weights = |seed| Encoder::new(&config, HeadKind::Projection, Device::Cpu, seed).state_dict().snapshot();
    let (a, b, c) = (weights(1), weights(1), weights(2));
    let name = "layer4.1.conv2.weight";
    let get = |s: &flatnce::state::StateDict| to_vec(s.get(name).expect("there"));
    assert_eq!(get(&a), get(&b));
    assert_ne!(get(&a), get(&c));
    let deviation = a.get(name).expect("there").std(true).double_value(&[]);
    assert!((deviation / (2.0f64 / (512.0 * 9.0)).sqrt() - 1.0).abs() < 0.01, "{deviation}");
    let linear = a.get("fc.linear_layers.net.0.weight").expect("there");
    let bound = 1.0 / 512f64.sqrt();
    assert!(linear.abs().max().double_value(&[]) <= bound);
    assert!((linear.std(true).double_value(&[]) / (bound / 3f64.sqrt()) - 1.0).abs() < 0.01);
    assert_eq!(to_vec(a.get("bn1.weight").expect("there")), vec![1.0; 64]);
    assert_eq!(to_vec(a.get("bn1.bias").expect("there")), vec![0.0; 64]);
}

#[test]
fn loading_names_everything_that_does_not_fit_and_changes_nothing() {
    let config = model_config("res10", "small", "nonlinear");
    let source = Encoder::new(&config, HeadKind::Projection, Device::Cpu, 1).state_dict().snapshot();
    let target = Encoder::new(&config, HeadKind::Projection, Device::Cpu, 2);
    let before = to_vec(target.state_dict().get("conv1.weight").expect("there"));
    let mut broken = flatnce::state::StateDict::new();
    for (name, tensor) in source.iter() {
        match name {
            "bn1.bias" => {}
            "layer1.0.conv1.weight" => broken.push(name, tensor.narrow(0, 0, 3)),
            _ => broken.push(name, tensor.shallow_clone()),
        }
    }
    broken.push("extra", Tensor::zeros([2], (Kind::Float, Device::Cpu)));
    let message = format!("{:#}", target.load(&broken).expect_err("does not fit"));
    for part in
        ["missing: bn1.bias [64]", "wrong shape: layer1.0.conv1.weight is [3, 64, 3, 3]", "unexpected: extra [2]"]
    {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(before, to_vec(target.state_dict().get("conv1.weight").expect("there")));
    target.load(&source).expect("fits");
    assert_eq!(
        to_vec(target.state_dict().get("conv1.weight").expect("there")),
        to_vec(source.get("conv1.weight").expect("there"))
    );
}

#[test]
fn gradients_of_both_objectives_match_autograd() {
    for case in fixture("loss/loss.json").as_array().expect("cases") {
        let (images, dim) = (case["images"].as_i64().expect("count"), case["dim"].as_i64().expect("dim"));
        let temperature = case["temperature"].as_f64().expect("temperature");
        for (objective, key) in [(Objective::SimClr, "info_nce"), (Objective::FlatClr, "flat_nce")] {
            for chunk in [1, 3 * 2 * images, 1 << 24] {
                let raw = Tensor::from_slice(&floats(&case["features"])).to_kind(Kind::Float).view([2 * images, dim]);
                let raw = raw.set_requires_grad(true);
                let z = normalise(&raw);
                let result = contrast_in_chunks(&z, temperature, objective, chunk);
                flatnce::loss::backward(&z, &result.gradient);
                let error = relative_error(&to_vec(&raw.grad()), &floats(&case[key]));
                assert!(error < 1e-5, "{objective} with {images} images, chunk {chunk}: {error:e}");
                let value = result.value().double_value(&[]);
                assert!((value - case["value"].as_f64().expect("value")).abs() < 1e-5, "{value}");
                assert_eq!(to_vec(&result.anchors.rank), floats(&case["rank"]));
                assert!(relative_error(&to_vec(&result.anchors.ness), &floats(&case["ness"])) < 1e-5);
            }
        }
    }
}

/// The worked example of the reference.
#[test]
fn one_anchor_by_hand() {
    let positive = Tensor::from_slice(&[0.8f32]).view([1, 1]);
    let negatives = Tensor::from_slice(&[0.5f32, 0.1, -0.2, 0.3]).view([1, 4]);
    let (a, w) = anchors(&positive, &negatives, 0.1);
    let v = a.log_xi.double_value(&[0]);
    assert!((v + 2.8562783).abs() < 1e-5);
    assert!((v.exp() - 0.0574823).abs() < 1e-6);
    assert!((v.exp().ln_1p() - 0.0558909).abs() < 1e-6);
    assert!((5f64.ln() - v.exp().ln_1p() - 1.5535470).abs() < 1e-6);
    assert!((a.ness.double_value(&[0]) - 0.3271518).abs() < 1e-6);
    assert!((a.log_xi.sigmoid().double_value(&[0]) - 0.0543577).abs() < 1e-6);
    assert!(relative_error(&to_vec(&w), &[0.8661287, 0.0158637, 0.0007898, 0.1172178]) < 1e-6);
    assert!((a.negative.double_value(&[0]) - 0.175).abs() < 1e-6);
    assert_eq!(a.rank.double_value(&[0]), 0.0);
}

fn random_rows(rows: i64, negatives: i64) -> (Tensor, Tensor) {
    let p = formula(rows as usize, 3, 0.4, 0.3).view([rows, 1]);
    let n = formula((rows * negatives) as usize, 8, 0.6, 0.0).view([rows, negatives]);
    (p, n)
}

#[test]
fn weights_and_ness_ignore_the_positive_shifts_and_order() {
    let (p, n) = random_rows(6, 9);
    let (base, w) = anchors(&p, &n, 0.2);
    let (moved, w_moved) = anchors(&(&p - 0.35), &n, 0.2);
    assert!(relative_error(&to_vec(&w_moved), &to_vec(&w)) < 1e-5);
    assert!(relative_error(&to_vec(&moved.ness), &to_vec(&base.ness)) < 1e-5);
    let (shifted, _) = anchors(&(&p + 0.5), &(&n + 0.5), 0.2);
    assert!(relative_error(&to_vec(&shifted.log_xi), &to_vec(&base.log_xi)) < 1e-5);
    let (permuted, w_flipped) = anchors(&p, &n.flip([1]), 0.2);
    assert!(relative_error(&to_vec(&permuted.log_xi), &to_vec(&base.log_xi)) < 1e-6);
    assert!(relative_error(&to_vec(&w_flipped.flip([1])), &to_vec(&w)) < 1e-6);
    assert!(
        base.ness.ge(1.0 / 9.0 - 1e-6).all().int64_value(&[]) == 1
            && base.ness.le(1.0 + 1e-6).all().int64_value(&[]) == 1
    );
}

/// Gradient of the mean loss with respect to the similarities, seen through one feature at a time: with features on
/// the axes every similarity is a coordinate.
#[test]
fn the_positive_pulls_with_one_over_t_and_negatives_push_with_their_weight() {
    let (images, t) = (4, 0.3);
    let z = normalise(&formula(8 * 8, 2, 1.0, 0.1).view([8, 8]));
    let flat = contrast(&z, t, Objective::FlatClr);
    let info = contrast(&z, t, Objective::SimClr);
    // Rebuild both gradients from q, w and the definition, row by row.
    let s = z.matmul(&z.tr());
    let (mut flat_oracle, mut info_oracle) = (z.zeros_like(), z.zeros_like());
    let mut pulls = Vec::new();
    for i in 0..2 * images {
        let p = (i + images) % (2 * images);
        let negatives: Vec<i64> = (0..2 * images).filter(|&j| j != i && j != p).collect();
        let d: Vec<f64> = negatives.iter().map(|&j| (s.double_value(&[i, j]) - s.double_value(&[i, p])) / t).collect();
        let xi: f64 = d.iter().map(|x| x.exp()).sum();
        let q = xi / (1.0 + xi);
        pulls.push(q);
        for (oracle, pull) in [(&mut flat_oracle, 1.0), (&mut info_oracle, q)] {
            let add = |row: i64, other: i64, amount: f64| {
                let _ = oracle.get(row).g_add_(&(z.get(other) * (amount / (2 * images) as f64)));
                let _ = oracle.get(other).g_add_(&(z.get(row) * (amount / (2 * images) as f64)));
            };
            add(i, p, -pull / t);
            for (&j, x) in negatives.iter().zip(&d) {
                add(i, j, pull * (x.exp() / xi) / t);
            }
        }
    }
    assert!(relative_error(&to_vec(&flat.gradient), &to_vec(&flat_oracle)) < 1e-5);
    assert!(relative_error(&to_vec(&info.gradient), &to_vec(&info_oracle)) < 1e-5);
    // The pulls differ between anchors, so the batch gradients are no multiples of each other.
    let (low, high) = pulls.iter().fold((1.0f64, 0.0f64), |(l, h), &q| (l.min(q), h.max(q)));
    assert!(high - low > 0.01);
    let ratio = &info.gradient / &flat.gradient;
    assert!(ratio.std(true).double_value(&[]) > 1e-3);
}

#[test]
fn flat_nce_has_the_gradient_of_the_decoupled_loss() {
    let z = normalise(&formula(10 * 6, 4, 1.0, 0.05).view([10, 6])).set_requires_grad(true);
    let (images, t) = (5, 0.2);
    // v averaged over anchors, recorded by autograd.
    let s = z.matmul(&z.tr()) / t;
    let mask = Tensor::eye(10, (Kind::Bool, Device::Cpu))
        .logical_or(&Tensor::eye(10, (Kind::Bool, Device::Cpu)).roll([images], [0]));
    let positive = s.diagonal(images, 0, 1);
    let positive = Tensor::cat(&[&positive, &positive], 0);
    let v = s.masked_fill(&mask, f64::NEG_INFINITY).logsumexp([1], false) - positive;
    v.mean(Kind::Float).backward();
    let flat = contrast(&z, t, Objective::FlatClr);
    assert!(relative_error(&to_vec(&flat.gradient), &to_vec(&z.grad())) < 1e-5);
}

#[test]
fn collapsed_features_give_the_ceiling_full_ness_and_no_accuracy() {
    for (images, ceiling) in [(128, 5.5413), (256, 6.2364), (512, 6.9305)] {
        let z = normalise(&Tensor::ones([2 * images, 4], (Kind::Float, Device::Cpu)));
        let c = contrast(&z, 0.1, Objective::FlatClr);
        assert!((c.value().double_value(&[]) - ceiling).abs() < 1e-4);
        assert!((c.mutual_information_ceiling() - ceiling).abs() < 1e-4);
        assert!((c.anchors.ness.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 1e-4);
        assert_eq!(c.anchors.top(1).double_value(&[]), 0.0);
    }
}

#[test]
fn swapping_the_views_swaps_the_gradient() {
    let z = normalise(&formula(12 * 5, 6, 1.0, 0.0).view([12, 5]));
    for objective in [Objective::SimClr, Objective::FlatClr] {
        let a = contrast(&z, 0.1, objective);
        let b = contrast(&z.roll([6], [0]), 0.1, objective);
        assert!(relative_error(&to_vec(&b.gradient.roll([6], [0])), &to_vec(&a.gradient)) < 1e-5);
        assert!((a.value().double_value(&[]) - b.value().double_value(&[])).abs() < 1e-6);
    }
}

/// The paper's numerical argument. Computed naively in a low precision, log(1 + xi) has no gradient once 1 + xi
/// rounds to 1; the program's InfoNCE pulls with sigmoid(log xi) there as everywhere, its FlatNCE with 1.
#[test]
fn in_low_precision_info_nce_vanishes_and_flat_nce_does_not() {
    for (kind, edge) in [(Kind::Float, 24), (Kind::Half, 11), (Kind::BFloat16, 8)] {
        for (exponent, vanishes) in [(edge + 1, true), (edge - 1, false)] {
            let xi = 2f64.powi(-exponent);
            let naive = (Tensor::from_slice(&[xi]).to_kind(kind) + 1.0).log();
            assert_eq!(naive.double_value(&[0]) == 0.0, vanishes, "{kind:?} xi = 2^-{exponent}");
            // Two images whose views agree and that have nothing in common: xi = 2 exp(-1/t) for every anchor.
            let z = Tensor::eye(2, (Kind::Float, Device::Cpu)).repeat([2, 1]);
            let t = 1.0 / (f64::from(exponent + 1) * 2f64.ln());
            let [info, flat] = [Objective::SimClr, Objective::FlatClr].map(|objective| contrast(&z, t, objective));
            assert!((info.anchors.log_xi.double_value(&[0]) - xi.ln()).abs() < 1e-4);
            let pull = xi / (1.0 + xi);
            let error = relative_error(&to_vec(&info.gradient), &to_vec(&(&flat.gradient * pull)));
            assert!(error < 1e-4, "{kind:?} xi = 2^-{exponent}: {error:e}");
            // Towards the positive with 1/t, from the anchor's side and from the positive's.
            assert!((flat.gradient.double_value(&[0, 0]) * t * 2.0 + 1.0).abs() < 1e-5, "xi = 2^-{exponent}");
        }
    }
}

#[test]
fn low_precision_features_are_contrasted_in_fp32() {
    let z = formula(8 * 6, 1, 1.0, 0.0).view([8, 6]).to_kind(Kind::BFloat16);
    let normal = normalise(&z);
    assert_eq!(normal.kind(), Kind::Float);
    assert_eq!(contrast(&normal, 0.1, Objective::FlatClr).gradient.kind(), Kind::Float);
}

fn optimizer_config(case: &Value) -> OptimizerConfig {
    let exclude = case["exclude"].as_bool().expect("flag");
    OptimizerConfig {
        name: OptimizerName::parse(case["name"].as_str().expect("name")).expect("known"),
        lr: 0.1,
        weight_decay: case["weight_decay"].as_f64().expect("decay"),
        momentum: case["momentum"].as_f64().expect("momentum"),
        lars_exclude_bn: exclude,
        lars_exclude_bias: exclude,
    }
}

fn optimizer_parameters() -> Vec<Parameter> {
    [("conv.weight", vec![3i64, 2, 2, 2], Role::Weight), ("fc.bias", vec![5], Role::Bias)]
        .into_iter()
        .enumerate()
        .map(|(k, (name, shape, role))| {
            let n = shape.iter().product::<i64>();
            let values: Vec<f32> = (0..n).map(|i| (0.7 * i as f64 + k as f64).sin() as f32).collect();
            let mut tensor = Tensor::from_slice(&values).view(shape.as_slice());
            if shape.len() == 4 {
                tensor = flatnce::model::channels_last(&tensor);
            }
            Parameter { name: name.to_owned(), tensor: tensor.set_requires_grad(true), role }
        })
        .collect()
}

fn set_gradients(parameters: &[Parameter], step: usize) {
    optim::clear_gradients(parameters);
    for (k, p) in parameters.iter().enumerate() {
        let noise: Vec<f32> =
            (0..p.tensor.numel()).map(|i| (0.3 * i as f64 + (step + k) as f64).cos() as f32).collect();
        let noise = Tensor::from_slice(&noise).view(p.tensor.size().as_slice());
        let gradient = p.tensor.detach() * 0.5 + noise;
        (&p.tensor * gradient).sum(Kind::Float).backward();
    }
}

#[test]
fn optimisers_follow_pytorch_and_continue_from_saved_state() {
    let golden = fixture("optim/optim.json");
    let lrs = floats(&golden["lrs"]);
    // As the CPU steps and as a GPU does, with the rate as a tensor.
    let there = |lr: f64| Rate::as_tensor(lr, Device::Cpu);
    let cases = golden["cases"].as_array().expect("cases").iter();
    let ways: [fn(f64) -> Rate; 2] = [Rate::from, there];
    for (case, rate) in cases.flat_map(|case| ways.map(|way| (case, way))) {
        let config = optimizer_config(case);
        let parameters = optimizer_parameters();
        let mut optimizer = optim::build(&config, parameters.clone()).expect("known optimiser");
        for (step, &lr) in lrs.iter().enumerate() {
            if step == 11 {
                // A new optimiser with the old one's state must not change anything.
                let saved: Vec<_> = optimizer.state().into_iter().map(|(i, n, t)| (i, n, t.copy())).collect();
                optimizer = optim::build(&config, parameters.clone()).expect("known optimiser");
                let find = |i: usize, name: &str| {
                    saved.iter().find(|(k, n, _)| *k == i && *n == name).map(|(_, _, t)| t.shallow_clone())
                };
                optimizer.load(&find).expect("state fits");
            }
            set_gradients(&parameters, step);
            optimizer.step(&rate(lr), None);
        }
        for (p, wanted) in parameters.iter().zip(case["result"].as_array().expect("results")) {
            let error = relative_error(&to_vec(&p.tensor), &floats(wanted));
            assert!(error < 1e-5, "{case}: {} {error:e}", p.name);
        }
    }
}

#[test]
fn lars_moves_a_parameter_that_starts_at_zero() {
    let case = serde_json::json!({"name": "lars", "weight_decay": 0.0, "momentum": 0.9, "exclude": false});
    let tensor = Tensor::zeros([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let parameters = vec![Parameter { name: "w".into(), tensor, role: Role::Weight }];
    let mut optimizer = optim::build(&optimizer_config(&case), parameters.clone()).expect("lars");
    (&parameters[0].tensor * 2.0).sum(Kind::Float).backward();
    optimizer.step(&0.5.into(), None);
    assert_eq!(to_vec(&parameters[0].tensor), vec![-1.0; 3]);
}

#[test]
fn state_of_another_shape_is_refused_by_name() {
    let case = serde_json::json!({"name": "sgd", "weight_decay": 0.0, "momentum": 0.9, "exclude": false});
    let mut optimizer = optim::build(&optimizer_config(&case), optimizer_parameters()).expect("sgd");
    let wrong = |i: usize, _: &str| (i == 1).then(|| Tensor::zeros([7], (Kind::Float, Device::Cpu)));
    let message = optimizer.load(&wrong).expect_err("wrong shape").to_string();
    assert!(message.contains("momentum_buffer of fc.bias is [7]") && message.contains("[5]"), "{message}");
}
