# SPDX-License-Identifier: Apache-2.0
"""``python -m simtune`` is ``simtune``."""

from simtune.cli.main import main

main()
