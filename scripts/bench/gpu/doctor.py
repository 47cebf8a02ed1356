"""Whether the machine can do anything at all: flatnce doctor in both forms, and what card it is."""

import json
import subprocess

import runner

import common
from report import Failed


def run(options, found):
    both = runner.Runs(2)
    words = [common.binary(), "doctor", f"--device={options.device}"]
    both.start("text", runner.outcome, options, words)
    both.start("json", runner.outcome, options, [*words, "--json"])
    status, said, errors = both["text"]
    # Its own table stands in the summary as it is.
    found.note(said.rstrip() or errors.strip())
    json_status, said, errors = both["json"]
    try:
        told = json.loads(said)
    except ValueError as error:
        raise Failed(f"doctor --json wrote no JSON: {said[:200]}{errors[-200:]}") from error
    # Without the CUDA part steps are not replayed, which "replay" tells; everything else can still be seen.
    wrong = sorted(one["name"] for one in told["findings"] if one["health"] == "wrong")
    details = {"wrong": ", ".join(wrong)} if wrong else {}
    found.check("the doctor finds nothing wrong", status == 0 or wrong == ["CUDA part"], status=status, **details)
    found.check("its JSON says the same", told["healthy"] is (json_status == 0), healthy=told["healthy"])
    found.facts(card=card(options, found), doctor=told["findings"], program=runner.call(options, [common.binary(), "--version"]).strip())


def card(options, found):
    """What nvidia-smi says of the GPU; None where there is none, or no nvidia-smi."""
    if options.device == "cpu":
        found.left_out("the card's name", "this is the CPU")
        return None
    names = ["name", "driver_version", "memory.total", "clocks.max.sm", "clocks.max.mem", "power.limit"]
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader", "-i", options.device.partition(":")[2] or "0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        found.left_out("the card's name", f"nvidia-smi: {error}")
        return None
    values = [value.strip() for value in done.stdout.strip().split(",")]
    if done.returncode != 0 or len(values) != len(names):
        found.left_out("the card's name", f"nvidia-smi ended with status {done.returncode}: {(done.stdout + done.stderr).strip()[-200:]}")
        return None
    found.note(", ".join(f"{name} {value}" for name, value in zip(names, values)))
    return dict(zip(names, values))
