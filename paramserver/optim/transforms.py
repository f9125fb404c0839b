"""The parts of which optimizers are chained: each one (init, update) on blocks of float32."""

from __future__ import annotations

import numpy as np

from paramserver.optim.base import Optimizer, State, scalar, stateless
from paramserver.optim.schedules import Schedule
from paramserver.types import Array


def scale_by_learning_rate(schedule: Schedule) -> Optimizer:
    """Turn a direction of ascent into a step of descent: multiply by minus the learning rate.

    Args:
        schedule: the learning rate for a count of updates applied before.
    """

    def update(updates: Array, state: State, parameters: Array, count: int) -> None:
        np.multiply(updates, scalar(-schedule(count)), out=updates)

    return stateless(update)


def accumulate_velocity(decay: float = 0.9) -> Optimizer:
    """Replace a gradient by the decaying sum of all gradients so far (the heavy ball).

    ``velocity = decay * velocity + gradient`` (Polyak, 1964, "Some methods of speeding up the convergence
    of iteration methods"; in this form Sutskever et al., 2013, section 2, with the learning rate outside).

    Args:
        decay: share of the velocity kept at each update, in [0, 1).
    """

    def init(parameters: Array) -> State:
        return {"momentum/velocity": np.zeros_like(parameters)}

    def update(updates: Array, state: State, parameters: Array, count: int) -> None:
        velocity = state["momentum/velocity"]
        np.multiply(velocity, scalar(decay), out=velocity)
        np.add(velocity, updates, out=velocity)
        np.copyto(updates, velocity)

    return Optimizer(init, update)


def accumulate_nesterov(decay: float = 0.9) -> Optimizer:
    """Look one step ahead along the velocity of the heavy ball: ``decay * velocity + gradient``.

    Nesterov, 1983; in this form, with the gradient taken at the weights themselves, Sutskever et al., 2013,
    "On the importance of initialization and momentum in deep learning", section 2, and Bengio et al., 2013,
    "Advances in optimizing recurrent networks", equation 7.

    Args:
        decay: share of the velocity kept at each update, in [0, 1).
    """

    def init(parameters: Array) -> State:
        return {"nesterov/velocity": np.zeros_like(parameters)}

    def update(updates: Array, state: State, parameters: Array, count: int) -> None:
        velocity = state["nesterov/velocity"]
        np.multiply(velocity, scalar(decay), out=velocity)
        np.add(velocity, updates, out=velocity)
        np.add(updates, velocity * scalar(decay), out=updates)

    return Optimizer(init, update)


def scale_by_adagrad(epsilon: float = 1e-10) -> Optimizer:
    """Divide a gradient by the root of the sum of all its squares so far.

    Duchi, Hazan and Singer, 2011, "Adaptive subgradient methods for online learning and stochastic
    optimization", figure 1 with the diagonal matrix.

    Args:
        epsilon: added to the root, so that a gradient of zero divides by something.
    """

    def init(parameters: Array) -> State:
        return {"adagrad/squares": np.zeros_like(parameters)}

    def update(updates: Array, state: State, parameters: Array, count: int) -> None:
        squares = state["adagrad/squares"]
        np.add(squares, updates * updates, out=squares)
        _divide_by_root(updates, squares, epsilon)

    return Optimizer(init, update)


def scale_by_rms(decay: float = 0.9, epsilon: float = 1e-8) -> Optimizer:
    """Divide a gradient by the root of a running mean of its squares.

    Tieleman and Hinton, 2012, "Neural networks for machine learning", lecture 6e (RMSProp). The mean begins
    at zero and is not corrected, so the first steps are larger by 1 / sqrt(1 - decay).

    Args:
        decay: of the mean, in [0, 1).
        epsilon: added to the root, so that a gradient of zero divides by something.
    """

    def init(parameters: Array) -> State:
        return {"rms/squares": np.zeros_like(parameters)}

    def update(updates: Array, state: State, parameters: Array, count: int) -> None:
        squares = state["rms/squares"]
        scratch = np.multiply(updates, updates)
        np.multiply(scratch, scalar(1.0 - decay), out=scratch)
        np.multiply(squares, scalar(decay), out=squares)
        np.add(squares, scratch, out=squares)
        _divide_by_root(updates, squares, epsilon)

    return Optimizer(init, update)


def add_decayed_weights(decay: float) -> Optimizer:
    """Add a share of the weights to a direction of ascent, so that each update makes them smaller.

    Placed after the scaling of an adaptive method and before the learning rate it is the decoupled weight
    decay of Loshchilov and Hutter, 2019, "Decoupled weight decay regularization", algorithm 2; under plain
    sgd it is the same as a penalty of ``decay / 2`` times the squared weights. It belongs to the optimizer,
    on the shard, so it acts once for each update, however many gradients are in it.

    Args:
        decay: share of the weights, 0 or more, multiplied by the learning rate.
    """

    def update(updates: Array, state: State, parameters: Array, count: int) -> None:
        np.add(updates, parameters * scalar(decay), out=updates)

    return stateless(update)


def _divide_by_root(updates: Array, squares: Array, epsilon: float) -> None:
    root = np.sqrt(squares)
    np.add(root, scalar(epsilon), out=root)
    np.divide(updates, root, out=updates)


def scale_by_adam(beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Optimizer:
    """Divide a running mean of the gradients by the root of a running mean of their squares.

    Kingma and Ba, 2015, "Adam: a method for stochastic optimization", algorithm 1, with the bias
    correction at ``t = count + 1``.

    Args:
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        epsilon: added to the root, so that a gradient of zero divides by something.
    """

    def init(parameters: Array) -> State:
        return {"adam/m": np.zeros_like(parameters), "adam/v": np.zeros_like(parameters)}

    def update(updates: Array, state: State, parameters: Array, count: int) -> None:
        m, v = state["adam/m"], state["adam/v"]
        correction1 = scalar(1.0 / (1.0 - beta1 ** (count + 1)))
        correction2 = scalar(1.0 / (1.0 - beta2 ** (count + 1)))
        scratch = np.multiply(updates, scalar(1.0 - beta1))
        np.multiply(m, scalar(beta1), out=m)
        np.add(m, scratch, out=m)
        np.multiply(updates, updates, out=scratch)
        np.multiply(scratch, scalar(1.0 - beta2), out=scratch)
        np.multiply(v, scalar(beta2), out=v)
        np.add(v, scratch, out=v)
        np.multiply(v, correction2, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.add(scratch, scalar(epsilon), out=scratch)
        np.multiply(m, correction1, out=updates)
        np.divide(updates, scratch, out=updates)

    return Optimizer(init, update)
