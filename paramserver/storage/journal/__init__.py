"""The journal of a run: what every shard was told and answered, in order, as files that only grow.

``RUN/journal/shard-0000/000000.journal`` and on: `frames` are the grains, `records` what is in them
(with their `answers` and `tensors`), `segments` the files, and `replay` does it all again.
"""

from paramserver.storage.journal.answers import light
from paramserver.storage.journal.decisions import DecisionWriter, read_decisions
from paramserver.storage.journal.frames import MAGIC, Frame, FrameDigest, Frames, Piece, read_frames
from paramserver.storage.journal.records import Record, decode, encode, is_recorded
from paramserver.storage.journal.replay import ReadCut, Replay, Replayed, Seam
from paramserver.storage.journal.segments import (
    JOURNAL,
    Header,
    Segment,
    check_link,
    cut_off_torn_tail,
    first_needed,
    header_pieces,
    journal_folder,
    read_header,
    read_journal,
    read_segment,
    segment_numbers,
    segment_path,
)
from paramserver.storage.journal.writer import SegmentWriter

__all__ = [
    "JOURNAL",
    "MAGIC",
    "DecisionWriter",
    "Frame",
    "FrameDigest",
    "Frames",
    "Header",
    "Piece",
    "ReadCut",
    "Record",
    "Replay",
    "Replayed",
    "Seam",
    "Segment",
    "SegmentWriter",
    "check_link",
    "cut_off_torn_tail",
    "decode",
    "encode",
    "first_needed",
    "header_pieces",
    "is_recorded",
    "journal_folder",
    "light",
    "read_decisions",
    "read_frames",
    "read_header",
    "read_journal",
    "read_segment",
    "segment_numbers",
    "segment_path",
]
