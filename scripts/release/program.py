"""Makes the built program fit for other machines.

program.py BUILT SHIPPED

Writes SHIPPED: BUILT without symbols, which looks for libtorch in `../lib` beside its own directory, not where it was
built. Prints the platform of wheels on which it runs, such as manylinux_2_35_x86_64: the oldest system that has every
version of a symbol that the program asks for.
"""

import os
import struct
import subprocess
import sys

RUNPATH = b"$ORIGIN/../lib"
# libtorch's own wheels need this glibc, 2.28.
LEAST_GLIBC = 28
# The first glibc, 2.x, whose systems have libstdc++ with GLIBCXX_3.4.y: (x, y).
LIBSTDCXX = [(28, 24), (31, 28), (34, 29), (35, 30), (39, 33)]

# Of the ELF format (64 bits, little-endian).
MAGIC = b"\x7fELF\x02\x01\x01"
LOAD, DYNAMIC = 1, 2
NEEDED, STRTAB, RPATH_TAG, RUNPATH_TAG, VERNEED, VERNEEDNUM = 1, 5, 15, 29, 0x6FFFFFFE, 0x6FFFFFFF


class Elf:
    """A program or shared object that begins at `start` of `data`."""

    def __init__(self, data, start=0):
        self.data, self.start = data, start
        offset, size, count = (self.read(kind, at) for kind, at in (("Q", 0x20), ("H", 0x36), ("H", 0x38)))
        # (type, offset, address, length in the file)
        segments = [self.segment(offset + number * size) for number in range(count)]
        self.loaded = [segment for segment in segments if segment[0] == LOAD]
        # (tag, value)
        self.dynamic = []
        for _, begin, _, length in (segment for segment in segments if segment[0] == DYNAMIC):
            places = range(begin, begin + length, 16)
            self.dynamic = [(self.read("Q", at), self.read("Q", at + 8)) for at in places]

    def read(self, kind, at):
        return struct.unpack_from("<" + kind, self.data, self.start + at)[0]

    def segment(self, at):
        return self.read("I", at), self.read("Q", at + 8), self.read("Q", at + 16), self.read("Q", at + 32)

    def values(self, tag):
        return [value for found, value in self.dynamic if found == tag]

    def place(self, address):
        """Where in the file an address lies."""
        for _, offset, begin, length in self.loaded:
            if begin <= address < begin + length:
                return address - begin + offset
        raise ValueError(f"no segment holds the address {address:#x}")

    def string_place(self, offset):
        return self.place(self.values(STRTAB)[0]) + offset

    def string(self, offset):
        begin = self.start + self.string_place(offset)
        return bytes(self.data[begin : self.data.index(b"\0", begin)])

    def versions(self):
        """Names of the symbols' versions that are asked for: GLIBC_2.35, GLIBCXX_3.4.29."""
        names = []
        entry = self.place(self.values(VERNEED)[0]) if self.values(VERNEED) else None
        for _ in range(self.values(VERNEEDNUM)[0] if entry is not None else 0):
            at = entry + self.read("I", entry + 8)
            for _ in range(self.read("H", entry + 2)):
                names.append(self.string(self.read("I", at + 8)).decode())
                at += self.read("I", at + 12)
            entry += self.read("I", entry + 12)
        return names


def move(data):
    """Overwrites where the program looks for libraries."""
    elf = Elf(data)
    places = elf.values(RPATH_TAG) + elf.values(RUNPATH_TAG)
    if len(places) != 1:
        raise ValueError(f"it has {len(places)} paths to its libraries, and 1 is expected")
    old, begin = elf.string(places[0]), elf.string_place(places[0])
    if len(old) < len(RUNPATH):
        raise ValueError(f"{old.decode()} is too short a name to write {RUNPATH.decode()} in its place; move libtorch")
    data[begin : begin + len(old)] = RUNPATH.ljust(len(old), b"\0")


def symbols(path):
    """Names of the symbols and libraries that the loader sees: what the overwritten name could have been a part of."""
    told = subprocess.run(["objdump", "-T", path], check=True, capture_output=True, text=True).stdout
    elf = Elf(open(path, "rb").read())
    return told.split("\n", 3)[3], [elf.string(name) for name in elf.values(NEEDED)]


def platform(data):
    """The wheel platform that has all that the program and the shared objects inside it ask for."""
    versions, start = [], 0
    while start >= 0:
        versions += Elf(data, start).versions()
        start = data.find(MAGIC, start + 1)
    newest = {family: newest_of(versions, family) for family in ("GLIBC_2.", "GLIBCXX_3.4.")}
    by_libstdcxx = [glibc for glibc, has in LIBSTDCXX if has >= newest["GLIBCXX_3.4."]]
    if not by_libstdcxx:
        raise ValueError(f"no system is known that has GLIBCXX_3.4.{newest['GLIBCXX_3.4.']}; build on an older one")
    return f"manylinux_2_{max(LEAST_GLIBC, newest['GLIBC_2.'], by_libstdcxx[0])}_x86_64"


def newest_of(versions, family):
    numbers = [version.removeprefix(family) for version in versions if version.startswith(family)]
    return max((int(number.split(".")[0]) for number in numbers), default=0)


def ship(built, shipped):
    partial = shipped + ".partial"
    subprocess.run(["strip", "--strip-all", "-o", partial, built], check=True)
    before = symbols(partial)
    data = bytearray(open(partial, "rb").read())
    move(data)
    with open(partial, "wb") as file:
        file.write(data)
    if symbols(partial) != before:
        raise ValueError("the name of libtorch's directory is a part of another name in it; move libtorch")
    os.chmod(partial, 0o755)
    os.replace(partial, shipped)
    print(platform(bytes(data)))


if __name__ == "__main__":
    try:
        ship(*sys.argv[1:])
    except (OSError, ValueError, IndexError, struct.error, subprocess.CalledProcessError) as error:
        sys.exit(f"program.py: {sys.argv[1]} cannot be shipped: {error}")
