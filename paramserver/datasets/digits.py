"""The digits that come with the package: 1,797 images of 8 by 8 pixels in ten classes.

Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository,
CC BY 4.0; see digits.LICENSE.txt beside this file.
"""

from __future__ import annotations

from importlib import resources

import numpy as np

from paramserver.data import Dataset
from paramserver.datasets.splits import Splits, cut_whole, scale_images

WHITE = 16
"""The pixels count the set bits of a 4 by 4 square."""


def load_digits() -> Splits:
    """Read the digits from the package; no network, no folder.

    Returns:
        Inputs (n, 64) float32 in [0, 1] and ten classes; a fixed stratified fifth is the test set.
    """
    with (
        resources.files(__package__).joinpath("digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        images, labels = arrays["images"], arrays["labels"]
    return cut_whole(Dataset(scale_images(images, WHITE), labels.astype(np.int64), "digits", classes=10))
