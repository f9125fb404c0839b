"""Convolution and pooling of images, and their vector-Jacobian products.

Images are ``(batch, height, width, channels)``: with the channels last, a convolution is one matrix product
whose result is in place at once, and a bias for each filter is a trailing dimension like any other bias.
Filters are ``(filters, height, width, channels)``: one row is one filter, so a server can own some of them.

A convolution lays all windows of an image side by side as rows of a matrix and multiplies it with the
filters (Chellapilla, Puri and Simard, High performance convolutional neural networks for document
processing, 2006, section 3.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from paramserver.types import AnyArray

Kept = tuple[AnyArray, AnyArray, tuple[int, ...]]
"""Of a convolution: the windows as rows, the filters, the shape of the images."""


def conv2d(images: AnyArray, filters: AnyArray, *, stride: int = 1, padding: int = 0) -> tuple[Any, Kept]:
    """Compute the product of each window with each filter, and keep what the vjps need.

    Args:
        images: ``(batch, height, width, channels)`` floats.
        filters: ``(filters, filter height, filter width, channels)`` of the same dtype.
        stride: pixels from one window to the next.
        padding: rows and columns of zeros laid around the image, on each side.

    Returns:
        ``(batch, windows down, windows across, filters)``, and the kept.
    """
    batch, height, width, channels = images.shape
    count, tall, wide, _ = filters.shape
    padded = np.ascontiguousarray(images)
    if padding:
        padded = np.zeros((batch, height + 2 * padding, width + 2 * padding, channels), images.dtype)
        padded[:, padding : padding + height, padding : padding + width] = images
    down = (padded.shape[1] - tall) // stride + 1
    across = (padded.shape[2] - wide) // stride + 1
    image, row, column, channel = padded.strides
    windows = as_strided(
        padded,
        (batch, down, across, tall, wide, channels),
        (image, row * stride, column * stride, row, column, channel),
        writeable=False,
    ).reshape(batch * down * across, -1)
    value = windows @ filters.reshape(count, -1).T
    return value.reshape(batch, down, across, count), (windows, filters, images.shape)


def conv2d_filters_vjp(g: AnyArray, kept: Kept, *, stride: int = 1, padding: int = 0) -> AnyArray:
    """Give the gradient with respect to the filters: the windows, summed with the weights ``g``."""
    windows, filters, _ = kept
    product: AnyArray = g.reshape(len(windows), -1).T @ windows
    return product.reshape(filters.shape)


def conv2d_images_vjp(g: AnyArray, kept: Kept, *, stride: int = 1, padding: int = 0) -> AnyArray:
    """Give the gradient with respect to the images: each window's, added up where windows overlap."""
    _, filters, (batch, height, width, channels) = kept
    count, tall, wide, _ = filters.shape
    _, down, across, _ = g.shape
    rows = g.reshape(-1, count)
    padded = np.zeros((batch, height + 2 * padding, width + 2 * padding, channels), g.dtype)
    # One product for each place in the window: its result lies as the images do, so it is added at full speed
    # (measured on 32 images of 14 x 14: 1.1 ms, against 1.7 ms with one product for all places).
    for i in range(tall):
        for j in range(wide):
            target = padded[:, i : i + stride * down : stride, j : j + stride * across : stride]
            np.add(target, (rows @ filters[:, i, j]).reshape(batch, down, across, channels), out=target)
    return padded[:, padding : padding + height, padding : padding + width].copy() if padding else padded


def max_pool(images: AnyArray, *, size: int) -> tuple[Any, Any]:
    """Take the largest pixel of each ``size`` x ``size`` square, and keep what the vjp needs.

    Squares do not overlap; rows and columns that fill no square are left out.
    """
    value = np.maximum.reduce(_corners(images, size))
    return value, (images, value)


def max_pool_vjp(g: AnyArray, kept: tuple[AnyArray, AnyArray], *, size: int) -> AnyArray:
    """Give all of ``g`` to the largest pixel of its square; of equal ones, to the first in reading order."""
    images, value = kept
    gradient = np.zeros_like(images)
    open_squares = np.ones(value.shape, np.bool_)
    for source, target in zip(_corners(images, size), _corners(gradient, size), strict=True):
        largest = source == value
        largest &= open_squares
        open_squares ^= largest
        np.multiply(g, largest, out=target)
    return gradient


def average_pool(images: AnyArray, *, size: int) -> tuple[Any, Any]:
    """Take the mean of each ``size`` x ``size`` square; otherwise as ``max_pool``."""
    corners = _corners(images, size)
    value = corners[0].copy()
    for corner in corners[1:]:
        value += corner
    value /= images.dtype.type(size * size)
    return value, images.shape


def average_pool_vjp(g: AnyArray, shape: tuple[int, ...], *, size: int) -> AnyArray:
    """Give each pixel of a square an equal share of ``g``."""
    gradient = np.zeros(shape, g.dtype)
    share = g / g.dtype.type(size * size)
    for target in _corners(gradient, size):
        target[...] = share
    return gradient


def _corners(images: AnyArray, size: int) -> list[AnyArray]:
    """View the pixels at each of the ``size * size`` places in a square, in reading order."""
    height, width = images.shape[1] // size * size, images.shape[2] // size * size
    return [images[:, i:height:size, j:width:size] for i in range(size) for j in range(size)]
