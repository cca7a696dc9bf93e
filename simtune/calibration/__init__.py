# SPDX-License-Identifier: Apache-2.0
"""Fits the numbers of a machine file that nobody publishes to native measurements."""
