"""The command `flatnce`: starts the program against the libtorch of the PyTorch in this environment.

PyTorch is found, not imported: that would take a second. What is imported here is paid at every start.
"""

import os
import sys
from importlib.machinery import PathFinder

# The release of PyTorch whose libtorch the program was compiled for.
TORCH = "2.11"


def main() -> None:
    """Becomes the program. Ends with a message where the environment holds no PyTorch that fits."""
    program = os.path.join(os.path.dirname(__file__), "bin", "flatnce")
    directories = [os.path.join(_torch(), "lib"), *_cuda()]
    earlier = os.environ.get("LD_LIBRARY_PATH")
    os.environ["LD_LIBRARY_PATH"] = ":".join([*directories, *([earlier] if earlier else [])])
    try:
        os.execv(program, sys.argv)
    except OSError as error:
        sys.exit(f"flatnce: error: {program} does not start: {error.strerror}; pip install --force-reinstall flatnce")


def _torch() -> str:
    """The directory of PyTorch."""
    mend = f"{sys.executable} -m pip install 'torch=={TORCH}.*'"
    spec = PathFinder.find_spec("torch")
    if spec is None or spec.origin is None:
        sys.exit(f"flatnce: error: there is no PyTorch in the environment of {sys.executable}; {mend}")
    place = os.path.dirname(spec.origin)
    version = _version(place)
    if not version.startswith(f"{TORCH}."):
        found = version or "of no version"
        sys.exit(f"flatnce: error: this program needs PyTorch {TORCH}, and {place} is {found}; {mend}")
    if ":" in place:
        sys.exit(f"flatnce: error: the loader cannot read a directory with a colon in its name: {place}")
    return place


def _version(torch: str) -> str:
    """What the PyTorch in this directory says of itself, such as `2.11.0+cu130`."""
    try:
        with open(os.path.join(torch, "version.py"), encoding="utf-8") as file:
            for line in file:
                if line.startswith("__version__ = "):
                    return line.split("=", 1)[1].strip().strip("'\"")
    except OSError:
        pass
    return ""


def _cuda() -> list[str]:
    """Directories of the CUDA libraries that were installed with PyTorch; none beside a PyTorch without CUDA."""
    spec = PathFinder.find_spec("nvidia")
    places = spec.submodule_search_locations if spec is not None else None
    found = []
    for place in places or []:
        for part in sorted(os.listdir(place)):
            library = os.path.join(place, part, "lib")
            if os.path.isdir(library) and ":" not in library:
                found.append(library)
    return found
