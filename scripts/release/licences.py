"""The licences of what is inside the program.

licences.py METADATA TARGET

METADATA is what `cargo metadata` says of the features that are built. Writes TARGET/CRATES.txt, a line for each crate
that is compiled into the program, and every text that their packages hold, once; and the licences of the program and of
the images inside it.
"""

import json
import pathlib
import re
import shutil
import sys

NAMES = re.compile(r"(un)?licen[cs]e|copying|copyright|notice", re.IGNORECASE)
FONTS = (".ttf", ".otf")


def crates(metadata):
    """The packages that the program is made of, without what only builds or tests it; by name."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    seen, waiting = {root}, [root]
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if normal and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    found = [packages[name] for name in seen - {root}]
    return packages[root], sorted(found, key=lambda package: (package["name"], package["version"]))


def texts(package):
    """Its licence texts, those of fonts among them."""
    home = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(path for path in home.rglob("*") if path.is_file()):
        of_a_font = path.suffix == ".txt" and any(other.suffix in FONTS for other in path.parent.iterdir())
        if (NAMES.match(path.name) and path.suffix not in (".rs", ".toml")) or of_a_font:
            yield path.relative_to(home), path.read_text(encoding="utf-8", errors="replace").strip()


def write(metadata, target):
    own, packages = crates(metadata)
    root = pathlib.Path(own["manifest_path"]).parent
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / "LICENSE", target / "LICENSE.txt")
    shutil.copyfile(root / "datasets/fashion_mnist_mini/README.md", target / "fashion_mnist.txt")
    lines, holders = [], {}
    for package in packages:
        name = f"{package['name']} {package['version']}"
        licence = package["license"] or package["license_file"]
        if not licence:
            sys.exit(f"licences.py: the crate {name} names no licence")
        mine = list(texts(package))
        lack = "" if mine else " (its package holds no text)"
        lines.append(f"{name}: {licence}{lack}; {package['repository'] or ''}")
        for path, text in mine:
            holders.setdefault(text, []).append(f"{name}, {path}")
    parts = ["Crates that are compiled into flatnce, with their licences; the texts follow.\n", *lines]
    parts = ["\n".join(parts)]
    parts += ["\n".join(names) + "\n\n" + text for text, names in holders.items()]
    rule = "\n\n" + 78 * "=" + "\n\n"
    (target / "CRATES.txt").write_text(rule.join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        write(json.load(file), pathlib.Path(sys.argv[2]))
