//! scripts/reproduce.sh's parts cifar and race without their trainings: what they would train, in which order, and what they
//! make of results.

mod support;

use std::path::Path;
use std::process::{Command, Output};
use support::python;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A study whose trainings are a function: `held(case)` is what a search finds.
const FAKE: &str = "
import sys, types; sys.path[:0] = ['scripts/study', 'scripts/bench']
import json, pathlib, cifar
out = pathlib.Path(sys.argv[1])
options = types.SimpleNamespace(batches=[32, 256, 64], recipes=['sgd'], seeds=2, factors=[0.5, 1.0, 2.0], search_epochs=1,
    epochs=4, images=100, model='res10', stem='small', device='cpu', at_once=2, minutes=None, draw=False)
study = types.SimpleNamespace(options=options, out=out, command='./scripts/reproduce.sh cifar', data_name='CIFAR-10')
made = []
def judged(study, case):
    made.append(case.name)
    return {'held_out': held(case)}
def accuracies(study, case):
    made.append(case.name)
    row = dict.fromkeys(cifar.KEPT, 0.5)
    return {'linear': 80.0 + case.seed, 'knn': 70.0, 'seconds': 1.0, 'memory_mib': 100, 'curve': [row], 'knn_curve': [[1, 70.4]]}
def searched(batch):
    best = []
    def one():
        best.append((yield from cifar.search(study, 'sgd', batch)))
    assert cifar.carry_out(book, [one()]) == []
    return best[0]
cifar.judged, cifar.final = judged, accuracies
cifar.evaluated, cifar.trained = lambda *words: {'linear': 50.0, 'knn': 40.0}, lambda *words, **named: None
held = lambda case: -abs(case.factor - 1.0)
";

fn run(python: &Path, out: &Path, text: &str) -> Output {
    let output = Command::new(python).args(["-c", &format!("{FAKE}{text}")]).arg(out).current_dir(ROOT).output();
    let output = output.expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn both_objectives_try_the_same_rates_and_the_best_lies_on_no_edge() {
    let Some(python) = python("matplotlib") else { return };
    let place = tempfile::tempdir().expect("a directory");
    // FlatCLR's best is four times the rule, beyond what is tried at first; SimCLR's is the rule.
    let text = "
held = lambda case: -abs(case.factor - (4.0 if case.objective == 'flatclr' else 1.0))
book = cifar.Book(study)
print(searched(32))
tried = {objective: sorted(run['factor'] for run in book.runs.values() if run['objective'] == objective) for objective in cifar.OBJECTIVES}
print(tried['simclr'] == tried['flatclr'], tried['simclr'])
held = lambda case: -case.factor
print(searched(64))
print(min(run['factor'] for run in book.runs.values()))
";
    let said = said(&run(&python, place.path(), text));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "{'simclr': 1.0, 'flatclr': 4.0}");
    assert_eq!(lines[1], "True [0.5, 1.0, 2.0, 4.0, 8.0]");
    // One that only falls is given up after some more.
    assert_eq!(lines[2..], ["{'simclr': 0.03125, 'flatclr': 0.03125}", "0.03125"]);
}

#[test]
fn the_corners_come_first_and_what_is_finished_is_not_made_again() {
    let Some(python) = python("matplotlib") else { return };
    let place = tempfile::tempdir().expect("a directory");
    let order = "
options.at_once = 1
cifar.run(study)
print([name.removeprefix('cifar-10_sgd_').removesuffix('_e4_n100_res10_small') for name in made if '_e4_' in name])
";
    let first = said(&run(&python, place.path(), order));
    let finals = first.lines().last().expect("a list");
    let place_of = |name: &str| finals.find(name).unwrap_or_else(|| panic!("{name}: {finals}"));
    for pair in [["b32_f1_s1", "b256_f1_s1"], ["b256_f1_s1", "b32_f1_s2"], ["b256_f1_s2", "b64_f1_s1"]] {
        assert!(place_of(pair[0]) < place_of(pair[1]), "{pair:?}: {finals}");
    }
    assert_eq!(finals.matches("clr_").count(), 12, "{finals}");
    let table = std::fs::read_to_string(place.path().join("cifar.md")).expect("a table");
    assert!(table.contains("| sgd | 64 | FlatCLR | 0.0075 | 2 | 81.5 ± 0.7 | 70.0 ± 0.0 |"), "{table}");
    assert!(table.contains("| sgd | 256 | +0.0 ± 0.0 | +0.0 ± 0.0 |"), "{table}");
    // A hundred images at half an image a second.
    assert!(table.contains("| sgd | 256 | SimCLR | 200 | 1.0 |"), "{table}");
    assert!(std::fs::read(place.path().join("cifar.png")).expect("a picture").starts_with(b"\x89PNG"));
    let again = said(&run(&python, place.path(), "cifar.run(study)\nprint(made)"));
    assert_eq!(again.lines().last(), Some("[]"));
    // Of trainings on other images nothing stands in the same table.
    let text = "
options.images = 200
cifar.run(study)
table = (out / 'cifar.md').read_text()
print(table.count('| untrained |  | 2 |'), table.count(' images, 4 epochs. On '), table.count('| sgd | 32 | SimCLR | 1 |'))
";
    assert_eq!(said(&run(&python, place.path(), text)).lines().last(), Some("2 2 2"));
    // Those of another data set are trained on anew; the encoders that they begin with do not depend on the batch sizes.
    let text = "
options.batches, study.data_name = [16], 'others'
cifar.run(study)
table = (out / 'cifar.md').read_text()
print(all('others' in name for name in made), len(made), table.count('| untrained |  | 2 |'))
study.data_name = 'CIFAR-10'
cifar.run(study)
print((out / 'cifar.md').read_text().count('| untrained |  | 2 |'))
";
    let told = said(&run(&python, place.path(), text));
    let told: Vec<&str> = told.lines().filter(|line| !line.contains('|')).collect();
    assert!(told.contains(&"True 10 3") && told.last() == Some(&"3"), "{told:?}");
    // By the rates that are known a longer training does not fit: nothing is begun, and what there is stays.
    let text = "
options.epochs, options.minutes, options.at_once = 4_000_000_000, 1, 1
cifar.run(study)
print(made)
";
    let output = run(&python, place.path(), text);
    assert_eq!(said(&output).lines().last(), Some("[]"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no time for more"), "{output:?}");
}

#[test]
fn a_training_that_fails_ends_the_study_and_what_is_finished_stays() {
    let Some(python) = python("matplotlib") else { return };
    let place = tempfile::tempdir().expect("a directory");
    let text = "
def held(case):
    if case.objective == 'flatclr':
        raise cifar.Failed('out of memory')
    return 40.0
options.at_once = 1
try:
    cifar.run(study)
except cifar.Failed as reason:
    print(reason, made, len(json.loads((out / 'cifar.json').read_text())['runs']))
";
    let said = said(&run(&python, place.path(), text));
    let names =
        ["simclr", "flatclr"].map(|objective| format!("'cifar-10_sgd_{objective}_b32_f0.5_s0_e1_n100_res10_small'"));
    assert_eq!(said.lines().last(), Some(&*format!("out of memory [{}] 1", names.join(", "))), "{said}");
}

#[test]
fn the_race_ends_with_the_shortest_training_that_gets_there() {
    let Some(python) = python("matplotlib") else { return };
    let place = tempfile::tempdir().expect("a directory");
    let text = "
import race
options.epochs, options.stem = None, 'small'
found = {100: 85.0, 200: 89.95, 300: 90.0, 500: 91.0}
class Made:
    def __init__(self, epochs): self.epochs = epochs
    def lines(self, name): return [{'epoch_seconds': 30.0}] * self.epochs
cifar.trained = lambda study, case, **named: made.append(case.epochs) or Made(case.epochs)
cifar.evaluated = lambda study, made, case: {'linear': 92.0, 'knn': found[made.epochs]}
study.write = lambda part, table, **content: print(table, made, content['reached'])
race.run(study)
found, made[:] = dict.fromkeys(found, 89.0), []
race.run(study)
options.epochs, made[:] = 7, []
found[7] = 90.5
race.run(study)
";
    let said = said(&run(&python, place.path(), text));
    assert!(said.contains("| 300 | 150.0 | 90.00 | 92.00 |"), "{said}");
    assert!(said.contains("90.0% after 150.0 minutes:\n\n    flatnce --dataset-name cifar10 --model res10 "), "{said}");
    assert!(said.contains(" --epochs 300\n [100, 200, 300] True\n"), "{said}");
    assert!(said.contains("90.0% not reached; the longest was"), "{said}");
    assert!(said.contains(" --epochs 500\n [100, 200, 300, 500] False\n"), "{said}");
    assert!(said.contains(" --epochs 7\n [7] True\n"), "{said}");
}
