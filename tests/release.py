"""Python's side of tests/release.rs: the package flatnce, as its users call it. Fails with an exception.

    release.py features FILE PIXELS FEATURES   load_encoder's features are those of `flatnce embed`
    release.py startup COMMAND                 the command computes for less than 60 ms, with a program that does nothing
    release.py run DIRECTORY                   read_run of a run, against PyYAML and json
    release.py config DIRECTORY                read_run of all that config.yml can hold (odd.json), and of damage
    release.py objectives LOSS                 FlatNCE and InfoNCE against tests/golden/loss/loss.json
    release.py encoders DIRECTORY              load_encoder against torchvision, and of files that are none
"""

import json
import pathlib
import sys

import flatnce


def refused(call, *words, error=ValueError):
    try:
        call()
    except error as found:
        assert all(word in str(found) for word in words), f"{found} does not say {words}"
    else:
        raise AssertionError(f"nothing was refused, where {words} was expected")


def features(file, pixels, expected):
    import numpy
    import torch

    print(flatnce.__file__, flatnce.__version__)
    encoder = flatnce.load_encoder(pathlib.Path(file))
    images = torch.frombuffer(bytearray(pathlib.Path(pixels).read_bytes()), dtype=torch.uint8)
    images = images.reshape(-1, 16, 16, 3).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        found = encoder(images)
    expected = torch.from_numpy(numpy.load(expected))
    assert found.shape == expected.shape == (12, 512) and encoder.features_dim == 512 and not encoder.training
    error = (found - expected).abs().max() / expected.abs().max()
    spread = (expected - expected.mean(0)).abs().max() / expected.abs().max()
    assert error < 1e-5 and spread > 1e-2, (error, spread)


def startup(command):
    import os
    import resource
    import subprocess

    def seconds():
        # Of computing, which other work on the machine hardly changes.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([command], check=True, env={"PATH": os.environ["PATH"]})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    found = [seconds() for _ in range(10)]
    print(f"{1000 * min(found):.0f} ms")
    assert min(found) < 0.060, found


def run(directory):
    assert "torch" not in sys.modules, "importing flatnce imports torch"
    found = flatnce.read_run(directory)
    assert "torch" not in sys.modules and "yaml" not in sys.modules, "reading a run imports what it does not need"
    import yaml

    directory = pathlib.Path(directory)
    assert found["config"] == yaml.safe_load((directory / "config.yml").read_text())
    assert found["config"]["job"]["pretrain"]["batch_size"] == 16
    for name, count in (("metrics", 1), ("steps", 2)):
        lines = (directory / f"{name}.jsonl").read_text().splitlines()
        assert found[name] == [json.loads(line) for line in lines] and len(lines) == count, name
    with open(directory / "steps.jsonl", "a") as file:
        file.write('{"step": 3, "lo')
    assert flatnce.read_run(directory)["steps"] == found["steps"]
    with open(directory / "steps.jsonl", "a") as file:
        file.write("\n")
    refused(lambda: flatnce.read_run(directory), "steps.jsonl line 3 is no JSON")


def config(directory):
    path = pathlib.Path(directory, "config.yml")
    expected = json.loads(pathlib.Path(directory, "odd.json").read_text())
    found = flatnce.read_run(directory)
    assert found == {"config": expected, "metrics": [], "steps": []}, found
    for text, *words in [
        ("", "holds no settings"),
        ("# no more\n", "holds no settings"),
        ("- 1\n", "holds no settings"),
        ("a: 1\nb\n", "line 2", "b"),
        ("a: 1\n   b: 2\n", "line 2"),
        ("a:\n    b: 1\n  c: 2\n", "line 3"),
        ('a: "torn\n', "line 1"),
        ("a: [1, 2\n", "line 1"),
        ("a: [1 2]\n", "line 1"),
        ("a: 1\na: 2\n", "line 2"),
        ("a: *x\n", "line 1"),
        ("a: |\n  text\n", "line 1"),
        ('a: "\\q"\n', "line 1"),
        ('a: "\\Uffffffff"\n', "line 1"),
    ]:
        path.write_text(text)
        refused(lambda: flatnce.read_run(directory), "config.yml", *words)
    path.unlink()
    refused(lambda: flatnce.read_run(directory), "config.yml", error=FileNotFoundError)


def objectives(golden):
    import torch

    classes = {"flat_nce": flatnce.FlatNCE, "info_nce": flatnce.InfoNCE}
    cases = json.loads(pathlib.Path(golden).read_text())
    assert len(cases) >= 3
    for case in cases:
        for name, objective in classes.items():
            for kind, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
                features = torch.tensor(case["features"], dtype=kind).reshape(2 * case["images"], case["dim"])
                first, second = (part.clone().requires_grad_() for part in features.chunk(2))
                loss = objective(case["temperature"])(first, second)
                loss.backward()
                gradient = torch.cat([first.grad, second.grad]).double()
                expected = torch.tensor(case[name], dtype=torch.float64).reshape(gradient.shape)
                error = (gradient - expected).abs().max() / expected.abs().max()
                assert loss.shape == () and loss.dtype == kind
                assert abs(loss.item() - case["value"]) < tolerance * case["value"] + tolerance, (name, loss)
                assert error < tolerance, (name, kind, error)
    first, second = torch.randn(2, 6, 4)
    for objective in classes.values():
        module = objective(temperature=0.2)
        assert isinstance(module, torch.nn.Module) and "temperature=0.2" in repr(module)
        alone = module(first, second)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert module(first, second) == alone, "autocast rounds the similarities"
        assert module(first.bfloat16(), second.bfloat16()).dtype == torch.float32
        refused(lambda: objective(0.0), "temperature is 0.0")
        refused(lambda: module(first, second[:3]), "[6, 4] and [3, 4]")
        refused(lambda: module(first[:1], second[:1]), "no negatives")


def encoders(directory):
    import torch
    import torchvision

    directory = pathlib.Path(directory)
    torch.manual_seed(3)
    images = torch.rand(2, 3, 48, 48)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    for name, width, small in (("resnet18", 512, True), ("resnet50", 2048, False)):
        network = getattr(torchvision.models, name)()
        if small:
            network.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
            network.maxpool = torch.nn.Identity()
        network.train()(images)  # so that BatchNorm's statistics are none of the defaults
        state = {f"normalize.{key}": value for key, value in (("mean", mean), ("std", std))}
        state |= network.state_dict()
        network.fc = torch.nn.Identity()
        path = directory / f"{name}.pth.tar"
        torch.save({"model_state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
        encoder = flatnce.load_encoder(path)
        assert isinstance(encoder, flatnce.Encoder) and encoder.features_dim == width and not encoder.training
        with torch.inference_mode():
            expected = network.eval()((images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
            found = encoder(images)
        assert found.shape == (2, width) and (found - expected).abs().max() < 1e-5 * expected.abs().max(), name

    def load(changed):
        torch.save({"model_state_dict": changed}, path)
        return lambda: flatnce.load_encoder(path)

    without = lambda name: {key: value for key, value in state.items() if key != name}
    refused(load(without("layer2.0.bn1.bias")), path.name, "Missing key", "layer2.0.bn1.bias")
    refused(load(without("conv1.weight")), "no ResNet")
    refused(load(without("normalize.std")), "no normalisation")
    refused(load(state | {"layer1.0.more": mean}), "Unexpected key", "layer1.0.more")
    refused(load(state | {"bn1.bias": mean}), "size mismatch", "bn1.bias")
    refused(load(state | {"bn1.bias": torch.full((64,), torch.nan)}), "bn1.bias", "not finite")
    refused(load([1, 2]), "no model_state_dict")
    path.write_bytes(b"no checkpoint")
    refused(lambda: flatnce.load_encoder(path), path.name, "no checkpoint of flatnce, or damaged")
    outside = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    for header in (b"{", outside, b'{"a":{"dtype":"F3"}}', b"{}  ", b"{1}"):
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        refused(lambda: flatnce.load_encoder(path), path.name)
    refused(lambda: flatnce.load_encoder(directory / "absent"), "absent", error=FileNotFoundError)


if __name__ == "__main__":
    called = [features, startup, run, config, objectives, encoders]
    {function.__name__: function for function in called}[sys.argv[1]](*sys.argv[2:])
