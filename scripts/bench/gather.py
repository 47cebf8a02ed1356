"""Joins what the measurements wrote into one table and one file.

    python scripts/bench/gather.py DIRECTORY [--json FILE]     # DIRECTORY holds PART.json of each
"""

import argparse
import json
from pathlib import Path

import common

ORDER = ["train", "kernels", "augment", "start", "index", "save", "eval", "precision"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    parts = {path.stem: json.loads(path.read_text()) for path in options.directory.glob("*.json")}
    names = [name for name in ORDER if name in parts]
    rows = [row for name in names for row in parts[name].get("rows", [])]
    where = common.surroundings()
    machine = where["machine"]
    print(f"\n{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
          f"avx512_bf16: {'yes' if machine['avx512_bf16'] else 'no'}; PyTorch {where['versions']['torch']}; "
          f"{where['commit']}; {where['date'][:10]}\n")
    print(common.table(rows))
    missed = [row for row in rows if row["met"] is False]
    print(f"\n{sum(row['met'] is True for row in rows)} targets met, {len(missed)} missed")
    if options.json:
        content = {**where, "quick": any(part.get("quick") for part in parts.values()), "parts": {n: parts[n] for n in names}}
        temporary = Path(options.json + ".tmp")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(options.json)


main()
