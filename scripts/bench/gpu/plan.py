"""The stages of prove_gpu.sh in their order, the most valuable first, with the seconds that each is thought to take on a GPU.

The work of a stage is the module of its name.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    name: str
    # Expected on one H100 with 16 cores; a stage begins only where half of this is left.
    seconds: int
    # After so many its processes are ended and what it has found stands.
    limit: int
    # What must have been made beforehand.
    needs: tuple = ()
    # Whether the others are worth as much without it.
    optional: bool = False


PLAN = [
    Stage("doctor", 10, 60),
    Stage("trainings", 20, 90),
    Stage("checks", 40, 120),
    Stage("devices", 35, 120),
    Stage("replay", 35, 120),
    Stage("small", 120, 240, ("data", "warm")),
    Stage("large", 85, 200, ("data", "warm")),
    Stage("variants", 55, 150, ("data",)),
    Stage("files", 60, 120, ("data",)),
    Stage("share", 25, 80, ("data",)),
    Stage("kernels", 55, 120, ("data", "warm")),
    Stage("memory", 35, 100, ("data",)),
    Stage("ranks", 25, 90),
    Stage("study", 30, 90),
]

# Made beside the stages that time nothing, and waited for before the first that does; their limits count from their start.
# What "warm" has not compiled by then the peers compile themselves.
BACKGROUND = [
    Stage("data", 15, 90),
    Stage("warm", 110, 190, ("data",), optional=True),
]
# In --smoke a stage may take so many times its limit: processors of continuous integration are slow.
SMOKE_PATIENCE = 5
