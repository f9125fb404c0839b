"""What a run leaves on disk: its folder, its metrics, its checkpoint. Nothing here is ever executed."""

from paramserver.storage.atomic import json_text, replacing, write_json, write_text
from paramserver.storage.checkpoint import (
    Checkpoint,
    SliceValues,
    read_checkpoint,
    write_manifest,
    write_shard,
)
from paramserver.storage.manifest import MANIFEST, Manifest, ShardFile, load_manifest
from paramserver.storage.metrics import MetricsWriter, read_metrics
from paramserver.storage.run_folder import RunFolder, create_run_folder

__all__ = [
    "MANIFEST",
    "Checkpoint",
    "Manifest",
    "MetricsWriter",
    "RunFolder",
    "ShardFile",
    "SliceValues",
    "create_run_folder",
    "json_text",
    "load_manifest",
    "read_checkpoint",
    "read_metrics",
    "replacing",
    "write_json",
    "write_manifest",
    "write_shard",
    "write_text",
]
