# SPDX-License-Identifier: Apache-2.0
"""Ground truth: native run times on this host or on a board, trustworthy enough to be labels."""
