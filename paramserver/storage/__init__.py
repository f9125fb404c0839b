"""What a run leaves on disk: its folder, its metrics, its checkpoint. Nothing here is ever executed."""

from paramserver.storage.atomic import (
    json_text,
    make_folder,
    remove_partial,
    replacing,
    sync_names,
    write_json,
    write_text,
)
from paramserver.storage.checkpoint import (
    Checkpoint,
    SliceValues,
    read_checkpoint,
    write_manifest,
    write_shard,
)
from paramserver.storage.cut_notes import CutNotes, JournalLink, read_notes
from paramserver.storage.cuts import (
    CHECKPOINTS,
    checkpoint_folder,
    checkpoints_begun,
    finish_checkpoint,
    has_checkpoint,
    keep_also,
    newest_checkpoint,
    read_cut,
    read_kept,
    remove_old,
    remove_unfinished,
    write_cut,
)
from paramserver.storage.job_record import (
    COORDINATOR,
    has_job_record,
    read_job_record,
    resumed,
    seconds_trained,
    write_job_record,
)
from paramserver.storage.manifest import MANIFEST, Manifest, ShardFile, load_manifest
from paramserver.storage.metrics import MetricsWriter, read_metrics
from paramserver.storage.run_folder import RunFolder, create_run_folder, reopen_run_folder

__all__ = [
    "CHECKPOINTS",
    "COORDINATOR",
    "MANIFEST",
    "Checkpoint",
    "CutNotes",
    "JournalLink",
    "Manifest",
    "MetricsWriter",
    "RunFolder",
    "ShardFile",
    "SliceValues",
    "checkpoint_folder",
    "checkpoints_begun",
    "create_run_folder",
    "finish_checkpoint",
    "has_checkpoint",
    "has_job_record",
    "json_text",
    "keep_also",
    "load_manifest",
    "make_folder",
    "newest_checkpoint",
    "read_checkpoint",
    "read_cut",
    "read_job_record",
    "read_kept",
    "read_metrics",
    "read_notes",
    "remove_old",
    "remove_partial",
    "remove_unfinished",
    "reopen_run_folder",
    "replacing",
    "resumed",
    "seconds_trained",
    "sync_names",
    "write_cut",
    "write_job_record",
    "write_json",
    "write_manifest",
    "write_shard",
    "write_text",
]
