# SPDX-License-Identifier: Apache-2.0
"""Smooth families: a neural network and a Gaussian process.

scikit-learn fits them; prediction is a few lines of numpy on plain arrays, which are what is stored.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtune.predictors.families.base import Array, Arrays, Design, Model


class _Standard(Model):
    """Standardises the features: mean 0, deviation 1 in training; constant columns become 0."""

    def _standardise(self, x: Array) -> Array:
        scale = x.std(axis=0)
        self._centre, self._scale = x.mean(axis=0), np.where(scale > 1e-9, scale, np.inf)
        return self._standard(x)

    def _standard(self, x: Array) -> Array:
        standard: Array = (x - self._centre) / self._scale
        return standard


class NeuralNetwork(_Standard):
    """Mean of several small networks from different starts; their spread is the uncertainty."""

    name = "mlp"
    members, hidden, penalty, iterations = 5, (32, 16), 0.3, 300

    def fit(self, design: Design, target: Array) -> None:
        from sklearn.neural_network import MLPRegressor

        x = self._standardise(design.logs)
        self._networks: list[list[Array]] = []  # weights and biases by turns
        for member in range(self.members):
            network = MLPRegressor(
                hidden_layer_sizes=self.hidden,
                activation="tanh",
                alpha=self.penalty,
                max_iter=self.iterations,
                random_state=self.seed + member,
                learning_rate_init=3e-3,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it stops at max_iter on purpose
                network.fit(x, target)
            self._networks.append(
                [a for pair in zip(network.coefs_, network.intercepts_, strict=True) for a in pair]
            )

    def predict(self, design: Design) -> tuple[Array, Array | None]:
        x = self._standard(design.logs)
        outputs = np.stack([_forward(x, network) for network in self._networks])
        return outputs.mean(axis=0), outputs.std(axis=0)

    def state(self) -> dict[str, NDArray[Any]]:
        layers = {
            f"{member}.{index}": array
            for member, network in enumerate(self._networks)
            for index, array in enumerate(network)
        }
        return {"centre": self._centre, "scale": self._scale} | layers

    def restore(self, state: Arrays) -> None:
        self._centre, self._scale = state["centre"], state["scale"]
        depth = 2 * (len(self.hidden) + 1)
        self._networks = [
            [state[f"{member}.{index}"] for index in range(depth)] for member in range(self.members)
        ]


def _forward(x: Array, network: list[Array]) -> Array:
    for index in range(0, len(network), 2):
        x = x @ network[index] + network[index + 1]
        if index + 2 < len(network):
            x = np.tanh(x)
    return x[:, 0]


class GaussianProcess(_Standard):
    """Constant x RBF + linear + noise; hyper-parameters by marginal likelihood on part of the rows.

    Fitting costs N^3, so at most `rows` candidates are kept, evenly out of all workloads.
    """

    name = "gp"
    rows, search_rows = 1200, 400

    def fit(self, design: Design, target: Array) -> None:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

        random = np.random.default_rng(self.seed)
        x = self._standardise(design.logs)
        order = random.permutation(len(x))
        width = float(np.sqrt(x.shape[1]))
        kernel = (
            ConstantKernel(0.1, (1e-4, 10)) * RBF(width, (0.3 * width, 30 * width))
            + ConstantKernel(0.01, (1e-6, 1)) * DotProduct(0.0, sigma_0_bounds="fixed")
            + WhiteKernel(0.01, (1e-4, 1))
        )
        self._offset = float(target.mean())
        search = GaussianProcessRegressor(kernel, random_state=self.seed)
        some = order[: self.search_rows]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a parameter at its bound is fine
            search.fit(x[some], target[some] - self._offset)
        signal, length, linear, noise = np.exp(search.kernel_.theta)
        self._parameters = np.array([signal, length, linear, noise])
        kept = order[: self.rows]
        self._x = x[kept]
        covariance = self._kernel(self._x, self._x) + noise * np.eye(len(kept))
        self._inverse = np.linalg.inv(covariance)
        self._weights = self._inverse @ (target[kept] - self._offset)

    def _kernel(self, a: Array, b: Array) -> Array:
        signal, length, linear, _ = self._parameters
        products = a @ b.T
        squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * products
        result: Array = signal * np.exp(-0.5 * np.maximum(squares, 0) / length**2) + linear * products
        return result

    def predict(self, design: Design) -> tuple[Array, Array | None]:
        mean, variance = np.empty(len(design)), np.empty(len(design))
        signal, _, linear, noise = self._parameters
        for part in _parts(len(design)):
            x = self._standard(design.logs[part])
            cross = self._kernel(x, self._x)
            mean[part] = self._offset + cross @ self._weights
            prior = signal + linear * (x**2).sum(axis=1) + noise
            variance[part] = prior - np.einsum("ij,ij->i", cross @ self._inverse, cross)
        return mean, np.sqrt(np.maximum(variance, 0))

    def mean(self, design: Design) -> Array:
        parts = _parts(len(design))
        found = [self._kernel(self._standard(design.logs[part]), self._x) @ self._weights for part in parts]
        return self._offset + np.concatenate([np.zeros(0), *found])

    def state(self) -> dict[str, NDArray[Any]]:
        return {
            "centre": self._centre,
            "scale": self._scale,
            "x": self._x,
            "inverse": self._inverse,
            "weights": self._weights,
            "parameters": self._parameters,
            "offset": np.array(self._offset),
        }

    def restore(self, state: Arrays) -> None:
        self._centre, self._scale, self._x = state["centre"], state["scale"], state["x"]
        self._inverse, self._weights = state["inverse"], state["weights"]
        self._parameters, self._offset = state["parameters"], float(state["offset"])


def _parts(number: int) -> list[slice]:
    """Rows in portions, which bound the memory for the covariances."""
    return [slice(start, start + 4096) for start in range(0, number, 4096)]
