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
from paramserver.datasets.sources import cache_folder
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
    """Read Fashion-MNIST from a folder.

    It is `data_dir`, else the one in ``FASHION_MNIST``, else the one of fetched data, else that of Debian's
    package.

    Args:
        data_dir: the folder with the four gzipped IDX files.

    Returns:
        Inputs (n, 784) float32 in [0, 1] and ten classes: its own 10,000 test images, and of its 60,000
        training images a fixed stratified tenth for validation.

    Raises:
        RequestError: the files are not there (it says how to get them) or not sound.
    """
    folder = find_folder(data_dir)
    images, labels = _read_pair(folder, TRAIN_IMAGES, TRAIN_LABELS)
    rest, part = stratified_indices(labels, VALIDATION_FRACTION, SPLIT_SEED)
    test_images, test_labels = _read_pair(folder, TEST_IMAGES, TEST_LABELS)
    # Pixels are scaled after the cut: as float32 the training side alone takes 188 MB.
    return Splits(
        Dataset(scale_images(images[rest], WHITE), labels[rest], NAME, CLASSES),
        Dataset(scale_images(images[part], WHITE), labels[part], f"{NAME} validation", CLASSES),
        Dataset(scale_images(test_images, WHITE), test_labels, f"{NAME} test", CLASSES),
    )


def find_folder(data_dir: Path | None = None) -> Path:
    """Find the folder with the four files.

    A folder that is named is taken, and no other, so that a wrong name is not passed over.

    Args:
        data_dir: the folder, if it is named.

    Raises:
        RequestError: a file is missing; it says how to get them.
    """
    variable = os.environ.get(FOLDER_VARIABLE)
    if data_dir is not None:
        folder, origin = data_dir, "--data-dir"
    elif variable:
        folder, origin = Path(variable), f"the variable {FOLDER_VARIABLE}"
    else:
        fetched = cache_folder() / NAME
        if not _missing(fetched):
            return fetched
        folder, origin = DEBIAN_FOLDER, f"where Debian's package puts it; nor is it in {fetched}"
    missing = _missing(folder)
    if missing:
        raise RequestError(
            f"The data set '{NAME}' was looked for in {folder} ({origin}), but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not there. Fetch it with: paramserver data get {NAME}. "
            f"Or install the package dataset-fashion-mnist of Debian or Ubuntu, or name the folder of the "
            f"four .gz files with --data-dir or {FOLDER_VARIABLE}."
        )
    return folder


def _missing(folder: Path) -> list[str]:
    names = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
    return [name for name in names if not (folder / name).is_file()]


def _read_pair(folder: Path, images_name: str, labels_name: str) -> tuple[npt.NDArray[np.uint8], Labels]:
    images = read_idx(folder / images_name, dimensions=3)
    labels = read_idx(folder / labels_name, dimensions=1).astype(np.int64)
    if len(images) != len(labels):
        raise RequestError(
            f"{folder / images_name} has {len(images)} images, but {labels_name} beside it has "
            f"{len(labels)} labels."
        )
    return images, labels
