"""Reads a run's event files with TensorBoard's own reader and prints what it found as JSON.

Usage: read_events.py DIRECTORY
"""

import json
import sys

from tensorboard.backend.event_processing import event_accumulator

accumulator = event_accumulator.EventAccumulator(
    sys.argv[1],
    size_guidance={event_accumulator.SCALARS: 0, event_accumulator.HISTOGRAMS: 0, event_accumulator.IMAGES: 0},
    purge_orphaned_data=True,
)
accumulator.Reload()
tags = accumulator.Tags()
found = {
    "scalars": {tag: [[e.step, e.value] for e in accumulator.Scalars(tag)] for tag in tags["scalars"]},
    "histograms": {
        tag: [
            {
                "step": e.step,
                "min": e.histogram_value.min,
                "max": e.histogram_value.max,
                "num": e.histogram_value.num,
                "sum": e.histogram_value.sum,
                "bucket": list(e.histogram_value.bucket),
                "bucket_limit": list(e.histogram_value.bucket_limit),
            }
            for e in accumulator.Histograms(tag)
        ]
        for tag in tags["histograms"]
    },
    "images": {
        tag: [[e.step, e.width, e.height, len(e.encoded_image_string)] for e in accumulator.Images(tag)]
        for tag in tags["images"]
    },
    "texts": {
        tag: [[e.step, e.tensor_proto.string_val[0].decode()] for e in accumulator.Tensors(tag)]
        for tag in tags["tensors"]
        if accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "text"
    },
}
print(json.dumps(found))
