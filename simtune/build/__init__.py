# SPDX-License-Identifier: Apache-2.0
"""Candidate → object → standalone static executable."""
