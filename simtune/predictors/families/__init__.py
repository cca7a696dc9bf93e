# SPDX-License-Identifier: Apache-2.0
"""The model families that learn run times from features: `create("xgb")`."""

from simtune.predictors.families.base import Design, Model
from simtune.predictors.families.registry import FAMILIES, create

__all__ = ["FAMILIES", "Design", "Model", "create"]
