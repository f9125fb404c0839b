"""The three parts of a data set that a job needs, and how they are cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paramserver.data import Dataset, held_out_indices
from paramserver.errors import RequestError
from paramserver.types import Array

SPLIT_SEED = 1797
"""Seed of all splits made here. It is fixed, so that every job and every seed meets the same test set."""

TEST_FRACTION = 0.2
VALIDATION_FRACTION = 0.1


@dataclass(frozen=True)
class Splits:
    """Hold what a job trains on, what it watches, and what it is judged by once at the end.

    Attributes:
        train: the samples that replicas share.
        validation: taken from the training side; scored while the job runs.
        test: never seen before the end.
    """

    train: Dataset
    validation: Dataset
    test: Dataset

    def __post_init__(self) -> None:
        for part in (self.validation, self.test):
            if part.features != self.train.features:
                raise RequestError(
                    f"All parts of a data set need the same features, but '{self.train.name}' has "
                    f"{self.train.features} and '{part.name}' has {part.features}."
                )
            if (part.task, part.rows) != (self.train.task, self.train.rows):
                raise RequestError(
                    f"All parts of a data set need the same task and table rows, but '{self.train.name}' has "
                    f"{self.train.task} and {self.train.rows} rows, and '{part.name}' has {part.task} and "
                    f"{part.rows} rows."
                )

    def with_task(self, task: str) -> Splits:
        """Take the same labels for another task; see `Dataset.with_task`.

        Raises:
            RequestError: these labels cannot be read so.
        """
        return Splits(*(part.with_task(task) for part in (self.train, self.validation, self.test)))


def with_validation(train: Dataset, test: Dataset, validation: Dataset | None = None) -> Splits:
    """Take a tenth of the training side for validation, stratified by class, unless there is one already.

    Args:
        train: the whole training side.
        test: the test set, with the same features and classes.
        validation: a validation set of its own.

    Raises:
        RequestError: no class has two samples, or the parts do not fit together.
    """
    if validation is None:
        rest, part = held_out_indices(train, VALIDATION_FRACTION, SPLIT_SEED)
        validation = train.take(part, f"{train.name} validation")
        train = train.take(rest, train.name)
    return Splits(train, validation, test)


def cut_whole(whole: Dataset) -> Splits:
    """Cut a fifth off for the test, stratified by class, then a tenth of the rest for validation.

    Raises:
        RequestError: no class has two samples.
    """
    rest, part = held_out_indices(whole, TEST_FRACTION, SPLIT_SEED)
    return with_validation(whole.take(rest, whole.name), whole.take(part, f"{whole.name} test"))


def scale_images(images: npt.NDArray[np.uint8], white: int) -> Array:
    """Flatten images and scale their pixels to [0, 1].

    Args:
        images: (n, height, width) or any shape of n samples, uint8.
        white: the pixel value that becomes 1.

    Returns:
        (n, features) float32.
    """
    inputs = images.reshape(len(images), -1).astype(np.float32)
    return np.divide(inputs, np.float32(white), out=inputs)
