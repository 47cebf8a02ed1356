"""Cuts an event file at many places, as a crash in the middle of a write does, and counts with TensorBoard's own reader
what can be read of each piece.

Usage: read_torn.py FILE; prints [[bytes kept, records read], ...] as JSON.
"""

import json
import pathlib
import sys
import tempfile

from tensorboard.backend.event_processing import event_file_loader

whole = pathlib.Path(sys.argv[1]).read_bytes()
found = []
with tempfile.TemporaryDirectory() as place:
    for kept in [*range(0, len(whole), max(1, len(whole) // 60)), len(whole)]:
        piece = pathlib.Path(place) / f"events.out.tfevents.{kept}"
        piece.write_bytes(whole[:kept])
        found.append([kept, sum(1 for _ in event_file_loader.RawEventFileLoader(str(piece)).Load())])
print(json.dumps(found))
