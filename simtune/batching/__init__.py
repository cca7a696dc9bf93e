# SPDX-License-Identifier: Apache-2.0
"""Many given candidates, simulated wherever an executor runs them; `simtune.batch` is the way in."""
