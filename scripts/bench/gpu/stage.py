"""One stage as a process of its own, started by main.py: python stage.py NAME --out DIR --place DIR --device D [--smoke]"""

import argparse
import importlib
import os
import sys
import time
import traceback
from pathlib import Path

import plan
import report


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=[stage.name for stage in plan.PLAN + plan.BACKGROUND])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        # Several programs share few cores: threads that wait for each other cost minutes.
        os.environ["OMP_NUM_THREADS"] = "1"
    elif not next(stage for stage in plan.PLAN + plan.BACKGROUND if stage.name == options.stage).alone:
        os.environ.setdefault("OMP_NUM_THREADS", "8")
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    begun = time.monotonic()
    (options.place / options.stage).mkdir(parents=True, exist_ok=True)
    found = report.Report(options.out / "results.jsonl", options.stage)
    try:
        importlib.import_module(options.stage).run(options, found)
    except (report.Failed, SystemExit) as error:
        found.check(f"{options.stage} comes to its end", False, error=str(error))
    except Exception as error:
        traceback.print_exc()
        found.check(f"{options.stage} comes to its end", False, error=f"{type(error).__name__}: {error}")
    if options.stage in [stage.name for stage in plan.BACKGROUND]:
        found.note(f"ready after {time.monotonic() - begun:.0f} s")
    if found.failures:
        sys.exit(1)


main()
