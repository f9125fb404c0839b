"""Fashion-MNIST: 70,000 images of clothes, 28 by 28 pixels in ten classes (Xiao, Rasul and Vollgraf, 2017).

The MNIST digits and other sets of the family have the same four files, and load from a folder just so.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from paramserver.data import Dataset, Labels, stratified_indices
from paramserver.datasets.idx import read_idx
from paramserver.datasets.splits import SPLIT_SEED, VALIDATION_FRACTION, Splits, scale_images
from paramserver.errors import RequestError

FOLDER_VARIABLE = "FASHION_MNIST"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"
WHITE = 255
CLASSES = 10
NAME = "fashion-mnist"


def load_fashion_mnist(data_dir: Path | None = None) -> Splits:
    """Read Fashion-MNIST from `data_dir`, else the folder in ``FASHION_MNIST``, else Debian's package.

    Args:
        data_dir: the folder with the four gzipped IDX files.

    Returns:
        Inputs (n, 784) float32 in [0, 1] and ten classes: its own 10,000 test images, and of its 60,000
        training images a fixed stratified tenth for validation.

    Raises:
        RequestError: the files are not there (it says how to get them) or not sound.
    """
    folder = _find_folder(data_dir)
    images, labels = _read_pair(folder, TRAIN_IMAGES, TRAIN_LABELS)
    rest, part = stratified_indices(labels, VALIDATION_FRACTION, SPLIT_SEED)
    test_images, test_labels = _read_pair(folder, TEST_IMAGES, TEST_LABELS)
    # Pixels are scaled after the cut: as float32 the training side alone takes 188 MB.
    return Splits(
        Dataset(scale_images(images[rest], WHITE), labels[rest], NAME, CLASSES),
        Dataset(scale_images(images[part], WHITE), labels[part], f"{NAME} validation", CLASSES),
        Dataset(scale_images(test_images, WHITE), test_labels, f"{NAME} test", CLASSES),
    )


def _find_folder(data_dir: Path | None) -> Path:
    """Take the first folder that is named, and look nowhere else, so that a wrong name is not passed over."""
    variable = os.environ.get(FOLDER_VARIABLE)
    if data_dir is not None:
        folder, origin = data_dir, "--data-dir"
    elif variable:
        folder, origin = Path(variable), f"the variable {FOLDER_VARIABLE}"
    else:
        folder, origin = DEBIAN_FOLDER, "where Debian's package puts it"
    missing = [
        name
        for name in (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
        if not (folder / name).is_file()
    ]
    if missing:
        raise RequestError(
            f"The data set '{NAME}' was looked for in {folder} ({origin}), but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not there. On Debian or Ubuntu install the package "
            f"dataset-fashion-mnist; elsewhere fetch the four .gz files that "
            f"https://github.com/zalandoresearch/fashion-mnist lists, and name their folder with --data-dir "
            f"or {FOLDER_VARIABLE}."
        )
    return folder


def _read_pair(folder: Path, images_name: str, labels_name: str) -> tuple[npt.NDArray[np.uint8], Labels]:
    images = read_idx(folder / images_name, dimensions=3)
    labels = read_idx(folder / labels_name, dimensions=1).astype(np.int64)
    if len(images) != len(labels):
        raise RequestError(
            f"{folder / images_name} has {len(images)} images, but {labels_name} beside it has "
            f"{len(labels)} labels."
        )
    return images, labels
