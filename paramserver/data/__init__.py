"""Data sets in memory, splits, and the samples of each replica at each step; files are read elsewhere."""

from paramserver.data.batches import (
    Batches,
    assignment,
    samples_of_rank,
    steps_of_rank,
    steps_of_ranks,
    steps_per_epoch,
)
from paramserver.data.chance import generator
from paramserver.data.dataset import CLASSES_MAX, ROWS_MAX, TASKS, Dataset, Indices, Labels
from paramserver.data.held_out import held_out_indices, stratified_indices, stratified_split
from paramserver.data.sampler import DistributedSampler
from paramserver.data.shares import SPLITS, parse_split, shares
from paramserver.data.synthetic_spec import synthetic_data

__all__ = [
    "CLASSES_MAX",
    "ROWS_MAX",
    "SPLITS",
    "TASKS",
    "Batches",
    "Dataset",
    "DistributedSampler",
    "Indices",
    "Labels",
    "assignment",
    "generator",
    "held_out_indices",
    "parse_split",
    "samples_of_rank",
    "shares",
    "steps_of_rank",
    "steps_of_ranks",
    "steps_per_epoch",
    "stratified_indices",
    "stratified_split",
    "synthetic_data",
]
