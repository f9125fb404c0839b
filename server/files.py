"""What servers tell each other of a file that one of them has written."""

from __future__ import annotations

from paramserver.storage import ShardFile
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import decode_slices, encode_slices


def encode_file(file: ShardFile) -> pb.ShardFile:
    """Return the message of a shard's file."""
    return pb.ShardFile(
        name=file.name,
        shard=file.shard,
        version=file.version,
        generation=file.generation,
        sha256=file.sha256,
        state_names=file.state_names,
        slices=encode_slices(file.slices),
    )


def decode_file(message: pb.ShardFile) -> ShardFile:
    """Return what a message says of a shard's file.

    Raises:
        RequestError: a slice is out of range.
    """
    return ShardFile(
        message.name,
        message.shard,
        message.version,
        message.generation,
        message.sha256,
        tuple(message.state_names),
        decode_slices(message.slices),
    )
