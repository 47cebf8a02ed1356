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

    @property
    def alone(self):
        """Whether nothing else of ours may be at work meanwhile."""
        return bool(self.needs) and self not in BACKGROUND


PLAN = [
    # The first to start reads gigabytes of libraries from the disk.
    Stage("doctor", 15, 120),
    Stage("trainings", 20, 120),
    Stage("checks", 40, 120),
    Stage("devices", 35, 120),
    Stage("replay", 30, 120),
    Stage("small", 135, 240, ("data", "warm")),
    Stage("variants", 40, 120, ("data",)),
    Stage("large", 65, 150, ("data", "warm")),
    Stage("files", 55, 120, ("data",)),
    Stage("share", 20, 80, ("data",)),
    Stage("memory", 40, 100, ("data",)),
    Stage("ranks", 25, 90),
    Stage("kernels", 50, 120, ("data", "warm")),
    Stage("study", 30, 90),
]

# Made beside the stages that time nothing, and waited for before the first that does; their limits count from their start.
# What "warm" has not compiled by then the peers compile themselves.
BACKGROUND = [
    Stage("data", 10, 90),
    Stage("warm", 110, 190, ("data",), optional=True),
]
# In --smoke a stage may take so many times its limit: processors of continuous integration are slow.
SMOKE_PATIENCE = 5
