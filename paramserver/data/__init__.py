"""Data sets in memory, splits, and the samples of each replica at each step; files are read elsewhere."""

from paramserver.data.batches import Batches, assignment, samples_of_rank, steps_of_rank, steps_per_epoch
from paramserver.data.chance import generator
from paramserver.data.dataset import (
    CLASSES_MAX,
    Dataset,
    Indices,
    Labels,
    stratified_indices,
    stratified_split,
)

__all__ = [
    "CLASSES_MAX",
    "Batches",
    "Dataset",
    "Indices",
    "Labels",
    "assignment",
    "generator",
    "samples_of_rank",
    "steps_of_rank",
    "steps_per_epoch",
    "stratified_indices",
    "stratified_split",
]
