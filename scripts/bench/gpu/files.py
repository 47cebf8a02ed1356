"""res50 at 224 pixels from JPEG files that the CPU's cores decode, against the same with the images on the device."""

import data
import timing


def run(options, found):
    size = data.Sizes(options)
    batch, files = size.file_batch, size.files * data.NAMES
    epochs = 3 if options.smoke else 4
    read = timing.Ours(options, [*data.jpeg_words(options, batch), "--engine=tensor"], epochs, files)
    work = f"{size.large}, {size.large_side} px, batch {batch}, bf16, from JPEG files of 500 x 375"
    found.row(work, None, "images/s", read.rates, None)
    found.row(f"{work}, waiting for them", None, "%", [read.waited], None)
    resident = timing.Ours(options, [*data.stl_words(options, batch), "--engine=tensor"], epochs - 1, size.large_images)
    count = min(len(read.rates), len(resident.rates))
    target = None if options.smoke else (">=", 0.9)
    found.row(work, "with the images on the device, ours too", "images/s", read.rates[-count:], resident.rates[-count:], target)
