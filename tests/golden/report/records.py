"""Writes records.bin: the records "flat" and "" framed by TensorBoard's own writer (2.21)."""

from pathlib import Path

from tensorboard.summary.writer.record_writer import RecordWriter

with open(Path(__file__).with_name("records.bin"), "wb") as file:
    writer = RecordWriter(file)
    writer.write(b"flat")
    writer.write(b"")
    writer.flush()
