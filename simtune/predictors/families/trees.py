# SPDX-License-Identifier: Apache-2.0
"""Tree families: extremely randomised trees (scikit-learn), boosted trees and ranking (XGBoost)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtune.errors import ToolMissingError
from simtune.predictors.families.base import Array, Arrays, Design, Model


class ExtraTrees(Model):
    """Extremely randomised trees; the spread of the trees is the uncertainty."""

    name = "extra-trees"
    trees, leaf, share = 100, 4, 0.5

    def fit(self, design: Design, target: Array) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        forest = ExtraTreesRegressor(
            self.trees, min_samples_leaf=self.leaf, max_features=self.share, random_state=self.seed
        )
        forest.fit(design.logs.astype(np.float32), target)
        self._trees = [tree.tree_ for tree in forest.estimators_]

    def predict(self, design: Design) -> tuple[Array, Array | None]:
        x = np.ascontiguousarray(design.logs, np.float32)
        total, squares = np.zeros(len(x)), np.zeros(len(x))
        for tree in self._trees:
            values = tree.predict(x).ravel()
            total += values
            squares += values**2
        mean = total / len(self._trees)
        return mean, np.sqrt(np.maximum(0, squares / len(self._trees) - mean**2))

    def state(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {"features": np.array(self._trees[0].n_features)}
        for number, tree in enumerate(self._trees):
            state = tree.__getstate__()
            arrays[f"nodes.{number}"], arrays[f"values.{number}"] = state["nodes"], state["values"]
            arrays[f"depth.{number}"] = np.array(state["max_depth"])
        return arrays

    def restore(self, state: Arrays) -> None:
        from sklearn.tree._tree import Tree

        features = int(state["features"])
        self._trees = []
        for number in range(self.trees):
            nodes, values = state[f"nodes.{number}"], state[f"values.{number}"]
            _check_nodes(nodes, values, features)
            tree = Tree(features, np.array([1], dtype=np.intp), 1)
            tree.__setstate__(
                {
                    "max_depth": int(state[f"depth.{number}"]),
                    "node_count": len(nodes),
                    "nodes": nodes,
                    "values": values,
                }
            )
            self._trees.append(tree)


def _check_nodes(nodes: NDArray[Any], values: NDArray[Any], features: int) -> None:
    """Native code follows these indices unchecked, so a foreign file must not choose them freely."""
    left, right, feature = nodes["left_child"], nodes["right_child"], nodes["feature"]
    inner, own = left >= 0, np.arange(len(nodes))
    ordered = (left > own) & (right > own) & (left < len(nodes)) & (right < len(nodes))
    known = (feature >= 0) & (feature < features)
    if not (len(nodes) and values.shape == (len(nodes), 1, 1) and np.all(~inner | (ordered & known))):
        raise ValueError("the nodes of a tree do not form a tree")


class _XGBoost(Model):
    """What the two XGBoost families share; the booster is stored in XGBoost's own binary JSON."""

    rounds = 300
    parameters: dict[str, Any]

    def _train(self, x: Array, label: Array, sizes: NDArray[np.int64] | None = None) -> None:
        xgboost = _xgboost()
        data = xgboost.DMatrix(x, label=label, nthread=1)
        if sizes is not None:
            data.set_group(sizes)
        common = {"tree_method": "hist", "nthread": 1, "seed": self.seed, "verbosity": 0}
        self._booster = xgboost.train(common | self.parameters, data, self.rounds)

    def _score(self, design: Design) -> Array:
        return np.asarray(self._booster.inplace_predict(design.logs), np.float64)

    def state(self) -> dict[str, NDArray[Any]]:
        return {"booster": np.frombuffer(bytes(self._booster.save_raw("ubj")), np.uint8)}

    def restore(self, state: Arrays) -> None:
        xgboost = _xgboost()
        self._booster = xgboost.Booster()
        try:
            self._booster.load_model(bytearray(state["booster"].tobytes()))
        except xgboost.core.XGBoostError as error:
            raise ValueError(f"XGBoost cannot read its model: {str(error).splitlines()[0]}") from None


class BoostedTrees(_XGBoost):
    """Gradient-boosted regression trees."""

    name = "xgb"
    parameters = {
        "eta": 0.05,
        "max_depth": 4,
        "min_child_weight": 4,
        "subsample": 0.8,
        "colsample_bytree": 0.5,
        "lambda": 3.0,
    }

    def fit(self, design: Design, target: Array) -> None:
        self._train(design.logs, target)

    def predict(self, design: Design) -> tuple[Array, Array | None]:
        return self._score(design), None


class Ranker(_XGBoost):
    """Learns the order inside each workload by pairs; a line maps its score back to log times."""

    name = "rank"
    residual_allowed = False
    parameters = BoostedTrees.parameters | {
        "objective": "rank:pairwise",
        "lambdarank_pair_method": "mean",
        "lambdarank_num_pair_per_sample": 8,
    }

    def fit(self, design: Design, target: Array) -> None:
        order = np.argsort(design.groups, kind="stable")
        sizes = np.unique(design.groups, return_counts=True)[1]
        self._line = np.array([0.0, 0.0])
        self._train(design.logs[order], target[order], sizes)  # slow is "relevant": larger scores
        scores = self._score(design)
        spread = float(scores.var())
        slope = float(np.cov(scores, target, bias=True)[0, 1]) / spread if spread else 0.0
        slope = max(slope, 1e-6)  # the order is what was learned: never turn it round
        self._line = np.array([slope, target.mean() - slope * scores.mean()])

    def predict(self, design: Design) -> tuple[Array, Array | None]:
        return self._line[0] * self._score(design) + self._line[1], None

    def state(self) -> dict[str, NDArray[Any]]:
        return super().state() | {"line": self._line}

    def restore(self, state: Arrays) -> None:
        super().restore(state)
        self._line = state["line"]


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError:
        raise ToolMissingError(
            "this model family needs XGBoost, which is not installed", "pip install 'simtune[xgb]'"
        ) from None
    return xgboost
