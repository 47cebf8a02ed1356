"""Writes the wheel: the program, the Python package beside it, and their licences (PEP 427).

wheel.py VERSION PLATFORM PROGRAM PACKAGE LICENCES OUT

PACKAGE is scripts/python/flatnce, LICENCES a directory of texts. Writes OUT/flatnce-VERSION-py3-none-PLATFORM.whl, with
the same bytes from the same files (times are SOURCE_DATE_EPOCH's), and prints its name.
"""

import base64
import hashlib
import os
import pathlib
import sys
import time
import zipfile

# The releases of PyTorch that have the program's libtorch.
REQUIRES = "torch==2.11.*"
METADATA = f"""\
Metadata-Version: 2.1
Name: flatnce
Version: {{version}}
Summary: Contrastive pre-training of image encoders (SimCLR and FlatNCE): one program over PyTorch's libtorch
License: MIT
Keywords: contrastive-learning,self-supervised,simclr,flatnce,pytorch
Classifier: License :: OSI Approved :: MIT License
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Rust
Classifier: Programming Language :: Python :: 3
Classifier: Typing :: Typed
Requires-Python: >=3.10
Requires-Dist: {REQUIRES}
Description-Content-Type: text/markdown

Contrastive pre-training of ResNets with FlatNCE (FlatCLR) and InfoNCE (SimCLR), with evaluation and diagnostics. The
command `flatnce` is a native program that runs on the libtorch of the PyTorch beside it; `flatnce --help` lists what it
does. `import flatnce` loads trained encoders, the objectives and the logs of runs into Python.
"""
WHEEL = """\
Wheel-Version: 1.0
Generator: flatnce
Root-Is-Purelib: false
Tag: {tag}
"""
ENTRY_POINTS = """\
[console_scripts]
flatnce = flatnce._launch:main
"""


def members(version, tag, program, package, licences):
    """(name, bytes, whether it is a program) of all files but RECORD."""
    info = f"flatnce-{version}.dist-info"
    for path in sorted(package.iterdir()):
        if path.suffix == ".py" or path.name == "py.typed":
            yield f"flatnce/{path.name}", path.read_bytes(), False
    yield "flatnce/bin/flatnce", program.read_bytes(), True
    for path in sorted(licences.iterdir()):
        yield f"{info}/licenses/{path.name}", path.read_bytes(), False
    yield f"{info}/entry_points.txt", ENTRY_POINTS.encode(), False
    yield f"{info}/METADATA", METADATA.format(version=version).encode(), False
    yield f"{info}/WHEEL", WHEEL.format(tag=tag).encode(), False


def write(version, platform, program, package, licences, out):
    tag = f"py3-none-{platform}"
    path = out / f"flatnce-{version}-{tag}.whl"
    # A zip archive knows no earlier time.
    when = time.gmtime(max(int(os.environ.get("SOURCE_DATE_EPOCH", 0)), 315532800))[:6]
    record, record_name = [], f"flatnce-{version}.dist-info/RECORD"

    def put(name, data, executable):
        about = zipfile.ZipInfo(name, when)
        about.external_attr = (0o100755 if executable else 0o100644) << 16
        about.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(about, data, compresslevel=9)

    with zipfile.ZipFile(f"{path}.partial", "w") as archive:
        for name, data, executable in members(version, tag, program, package, licences):
            put(name, data, executable)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}")
        put(record_name, "".join(line + "\n" for line in [*record, f"{record_name},,"]).encode(), False)
    os.replace(f"{path}.partial", path)
    print(path.name)


if __name__ == "__main__":
    version, platform, *paths = sys.argv[1:]
    write(version, platform, *map(pathlib.Path, paths))
