"""Unpacks what flatnce needs out of the wheels of libtorch.

unpack.py cpu|cuda VERSION TARGET WHEEL...

cpu:  TARGET/lib, TARGET/include: libtorch without its CUDA half.
cuda: TARGET/torch/lib, TARGET/torch/include, TARGET/nvidia/*/lib: the layout of
      site-packages, in which the libraries find each other by their rpaths.
Both: include-cuda beside include, the headers of CUDA's runtime, with which the part
of the program that uses CUDA is compiled; build-version (torch-sys reads it) and every licence. The caller has checked the
wheels' SHA-256.
"""

import pathlib
import shutil
import sys
import zipfile

CPU_LIBRARIES = {
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libc10.so",
    "torch/lib/libgomp.so.1",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
}
# One of each kind, so that a wheel with another layout is noticed here.
CUDA_LIBRARIES = CPU_LIBRARIES | {
    "torch/lib/libtorch.so",
    "torch/lib/libtorch_cuda.so",
    "torch/lib/libc10_cuda.so",
    "nvidia/cu13/lib/libcublas.so.13",
    "nvidia/cudnn/lib/libcudnn.so.9",
    "nvidia/nccl/lib/libnccl.so.2",
}
HEADERS = {
    "torch/include/torch/csrc/api/include/torch/all.h",
    "nvidia/cu13/include/cuda.h",
    "nvidia/cu13/include/cuda_runtime.h",
    "nvidia/cu13/include/crt/host_defines.h",
}
# The other wheels' headers of CUDA are not needed.
WITH_CUDA_HEADERS = ("nvidia_cuda_runtime-", "nvidia_cuda_crt-")
CUDA_INCLUDE = "nvidia/cu13/include/"


def place(member, layout, wheel):
    """Where a wheel's member goes below the target, or None where it is not needed."""
    parts = pathlib.PurePosixPath(member).parts
    if member.endswith("/") or ".." in parts or member.startswith("/"):
        return None
    if ".dist-info" in parts[0] and "licen" in member.lower():
        return pathlib.Path("licences", parts[0].removesuffix(".dist-info"), parts[-1])
    if parts[0] == "nvidia" and parts[-1].upper().startswith("LICENSE"):
        return pathlib.Path("licences", *parts)
    if member.startswith("torch/include/"):
        return pathlib.Path(*(parts if layout == "cuda" else parts[1:]))
    if member.startswith(CUDA_INCLUDE):
        if not wheel.startswith(WITH_CUDA_HEADERS):
            return None
        root = "torch/include-cuda" if layout == "cuda" else "include-cuda"
        return pathlib.Path(root, member.removeprefix(CUDA_INCLUDE))
    if layout == "cpu":
        return pathlib.Path("lib", parts[-1]) if member in CPU_LIBRARIES else None
    is_library = ".so" in parts[-1] and "lib" in parts[:-1]
    return pathlib.Path(*parts) if is_library and parts[0] in ("torch", "nvidia") else None


def unpack(layout, version, target, wheels):
    missing = HEADERS | (CUDA_LIBRARIES if layout == "cuda" else CPU_LIBRARIES)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                path = place(member, layout, pathlib.Path(wheel).name)
                if path is None:
                    continue
                path = target / path
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(path, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                missing.discard(member)
    if missing:
        sys.exit("unpack.py: the wheels hold no " + ", ".join(sorted(missing)))
    libtorch = target / "torch" if layout == "cuda" else target
    (libtorch / "build-version").write_text(version + "\n")
    if layout == "cpu":
        # The wheel's libtorch.so also asks for libtorch_cuda.so. The linker needs the
        # name only, and takes this text for it.
        (libtorch / "lib/libtorch.so").write_text("INPUT(libtorch_cpu.so)\n")


if __name__ == "__main__":
    layout, version, target, *wheels = sys.argv[1:]
    try:
        unpack(layout, version, pathlib.Path(target), wheels)
    except (OSError, zipfile.BadZipFile) as error:
        sys.exit(f"unpack.py: {error}")
