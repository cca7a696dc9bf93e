# SPDX-License-Identifier: Apache-2.0
"""The search's cost model: boosted trees over TVM's per-store features.

Guides the evolutionary search between batches. TVM's own "xgb" needs the xgboost package and takes
longer to train than the candidates take to simulate; this one trains in a fraction of a second.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simtune import tvm_setup
from simtune.build.inputs import Array

ms = tvm_setup.load()

from tvm.ir.utils import derived_object  # noqa: E402

#: Below this many candidates a model knows less than chance does.
MIN_SAMPLES = 16


@derived_object
class BoostedTrees(ms.cost_model.PyCostModel):  # type: ignore[misc, name-defined]
    """Predicts a score from 0 (failed) to 1 (the best so far of its task).

    Args:
        seed: of the trees' random choices.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.extractor = ms.feature_extractor.PerStoreFeature(extract_workload=True)
        self.rows: list[Array] = []
        self.costs: list[float] = []
        self.tasks: list[str] = []
        self.model: Any = None
        self.rng = np.random.default_rng(seed)

    def features(self, context: Any, candidates: list[Any]) -> Array:
        """One row per candidate, shape (n, 3 * 164): over its stores the maximum, the mean, and the
        features of the last store, which the fused tail of the kernel writes."""
        rows = []
        for tensor in self.extractor.extract_from(context, candidates):
            stores = tensor.numpy()
            rows.append(np.concatenate([stores.max(axis=0), stores.mean(axis=0), stores[-1]]))
        return np.asarray(rows, dtype=np.float32)

    def update(self, context: Any, candidates: list[Any], results: list[Any]) -> None:
        """Adds a batch of results and trains anew; called by MetaSchedule."""
        self.rows.extend(self.features(context, candidates))
        for result in results:
            seconds = [float(s) for s in result.run_secs] if result.run_secs else []
            self.costs.append(float(np.median(seconds)) if seconds else np.inf)
            self.tasks.append(str(context.task_name))
        if len(self.rows) >= MIN_SAMPLES:
            self._train()

    def _train(self) -> None:
        from sklearn.ensemble import GradientBoostingRegressor

        costs, tasks = np.asarray(self.costs), np.asarray(self.tasks)
        scores = np.zeros(len(costs))
        for task in set(self.tasks):
            mine = (tasks == task) & np.isfinite(costs)
            if mine.any():
                # A zero is legal for an objective; the best gets score 1 whatever its value.
                best = max(float(costs[mine].min()), 1e-30)
                scores[mine] = best / np.maximum(costs[mine], best)
        # A few hundred rows: the plain trees train in a tenth of the time of the histogram kind.
        self.model = GradientBoostingRegressor(
            n_estimators=100, max_depth=4, max_features=0.3, subsample=0.8, random_state=self.seed
        )
        self.model.fit(np.stack(self.rows), scores)

    def predict(self, context: Any, candidates: list[Any]) -> Array:
        """Scores, float64 of shape (n,), higher is better; called by MetaSchedule."""
        if self.model is None:
            return self.rng.random(len(candidates))
        scores: Array = self.model.predict(self.features(context, candidates)).astype(np.float64)
        return scores

    def load(self, path: str) -> None:
        """Not stored: a resumed run trains it again from its records in less time than loading takes."""

    def save(self, path: str) -> None:
        """See `load`."""
