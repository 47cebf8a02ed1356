"""res50 at 224 pixels with the images on the device, against torch.compile."""

import data
import small
import timing


def peer(size):
    """timing.peers' words for it."""
    return size.large, "stl.npy", size.large_batch, size.large_side, "--strength=1", "--blur"


def run(options, found):
    size = data.Sizes(options)
    words = [*data.stl_words(options, size.large_batch), "--engine=tensor"]
    mine = timing.Ours(options, words, 3 if options.smoke else 4, size.large_images)
    work = size.large_name
    small.alone(options, found, work, mine, None)
    # Not reduce-overhead: of a step of a tenth of a second launches are no part, and compiling it again takes half a minute.
    told = timing.against(options, found, work, mine, {"compiled": (5, 15, 3)}, timing.NAMES, {"compiled": (">=", 1.0)}, *peer(size))
    small.memory(found, work, mine, told)
