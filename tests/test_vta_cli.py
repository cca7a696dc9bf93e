# SPDX-License-Identifier: Apache-2.0
"""`simtune vta` and `simtune simulate vta:...` as users meet them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from process_helpers import simtune

BEST = ("-c", "tile_h=8,tile_w=56,tile_co=2", "-c", "oc_nthread=2")


def answer(*arguments: object, cwd: Path, status: int = 0) -> Any:
    done = simtune(*arguments, "--json", cwd=cwd)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def test_space_tells_size_share_and_reasons(tmp_path: Path) -> None:
    found = answer("vta", "space", "resnet18.c2", "--plot", "map.png", cwd=tmp_path)
    assert (found["size"], found["valid"], found["machine"]) == (2304, 182, "vta-pynq")
    assert found["reasons"]["ST_2D"] == 693
    assert sum(found["reasons"].values()) + found["valid"] == found["size"]
    assert sum(found["clusters"]) == found["valid"]
    assert found["knobs"]["tile_w"] == [1, 2, 4, 7, 8, 14, 28, 56]
    image = imread(tmp_path / "map.png")[..., :3]
    blue = np.isclose(image, (0, 0x68 / 255, 0xA8 / 255), atol=0.02).all(axis=2)
    assert 0.03 < blue.mean() < 0.2  # the valid points, 7.9 % of the map
    done = simtune("vta", "space", "vta:resnet18.c2", "-m", "vta-sim", cwd=tmp_path)
    assert "2,304 points, 182 valid (7.9%)" in done.stdout
    assert "padding would fall on the innermost" in done.stdout


def test_simulate_counts_and_draws(tmp_path: Path) -> None:
    found = answer(
        "vta", "simulate", "resnet18.c2", "-m", "vta-sim", *BEST, "--gantt", "gantt.png", cwd=tmp_path
    )
    assert (found["status"], found["cycles"], found["point"]) == ("ok", 561_583, 1410)
    assert found["counters"]["gemm.uops"] == 451_584
    image = imread(tmp_path / "gantt.png")[..., :3]
    orange = np.isclose(image, (0xC2 / 255, 0x4E / 255, 0), atol=0.02).all(axis=2)
    assert orange.mean() > 0.05  # GEMM is what it does most


def test_simulate_leads_to_the_same(tmp_path: Path) -> None:
    arguments = ("-m", "vta-pynq", "-c", "oc_nthread=2,tile_co=32")
    one = answer("vta", "simulate", "resnet18.c10", *arguments, cwd=tmp_path, status=1)
    other = answer("simulate", "vta:resnet18.c10", *arguments, cwd=tmp_path, status=1)
    assert {**one, "wall_s": 0} == {**other, "wall_s": 0}
    assert (one["status"], one["code"], one["cycles"]) == ("invalid", "VT_DIV", None)
    done = simtune("simulate", "vta:resnet18.c2", "-m", "vta-pynq", *BEST, cwd=tmp_path)
    assert done.returncode == 0
    assert "the output equals the reference, bit for bit" in done.stdout
    assert "607,320 cycles" in done.stdout.replace("\n", " ")


def test_invalid_configurations_say_why(tmp_path: Path) -> None:
    done = simtune("vta", "simulate", "resnet18.c2", "-c", "tile_h=8,tile_w=28,tile_co=2", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "invalid in lower: ST_2D, the store needs more than two dimensions" in done.stderr
    assert "next: 'simtune vta space resnet18.c2' shows what is valid" in done.stderr


def test_disassembly(tmp_path: Path) -> None:
    done = simtune("vta", "disasm", "resnet18.c2", *BEST, cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert len(lines) == 299
    assert lines[0].split(None, 1) == ["0", "store.out push:s2g sram=0 dram=0 y=0 x=0 stride=0"]
    assert lines[-1].split() == ["298", "finish"]
    found = answer("vta", "disasm", "resnet18.c2", *BEST, cwd=tmp_path)
    assert len(found["instructions"]) == 299
    assert found["instructions"][-1] == {"text": "finish", "words": [f"{3:016x}", f"{0:016x}"]}


def test_layers_and_machines(tmp_path: Path) -> None:
    layers = answer("vta", "layers", cwd=tmp_path)["layers"]
    assert {"name", "form", "macs", "space"} == set(layers[0])
    machines = answer("vta", "machines", cwd=tmp_path)["machines"]
    assert "vta-pynq" in {machine["name"] for machine in machines}
    shown = answer("vta", "machines", "vta-pynq", cwd=tmp_path)
    assert shown["timing"]["beat_cycles"] == 2.75
    assert "deepbench.ocr3" in simtune("vta", "layers", cwd=tmp_path).stdout
    assert "hardware.inp_bytes" in simtune("vta", "machines", "vta-sim", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (("vta", "space", "resnet18.c22"), "'resnet18.c22' is no layer", "did you mean resnet18.c2"),
        (("vta", "space", "resnet18.c2", "-m", "vta-pink"), "no VTA machine 'vta-pink'", "'vta-pynq'"),
        (("vta", "simulate", "resnet18.c2", "-m", "cortex-a72", "-c", "1"), "no VTA machine", "vta-pynq"),
        (("vta", "simulate", "resnet18.c2", "-c", "tile_h=3"), "tile_h cannot be 3", "one of 1, 2, 4"),
        (("vta", "simulate", "resnet18.c2", "-c", "tile_q=3"), "no knob tile_q", "tile_b, tile_h"),
        (("vta", "simulate", "resnet18.c2", "-c", "fast"), "'fast' is no setting", "tile_h=8"),
        (("vta", "simulate", "resnet18.c2", "-c", "9999"), "no point 9999", "0 to 2303"),
        (("vta", "disasm", "resnet18.c2", "-c", "tile_h=8,tile_w=7,tile_co=2"), "ST_2D", "vta space"),
        (("vta", "machines", "./none.toml"), "no VTA machine file none.toml", "check the path"),
        (("simulate", "vta:resnet18.c2", "-m", "vta-pynq"), "needs a configuration", "--config"),
        (("simulate", "vta:resnet18.c2", "-m", "u74", "-c", "1"), "'u74' is no VTA machine", "vta-pynq"),
        (
            ("simulate", "vta:resnet18.c2", "-m", "vta-pynq", "-c", "1", "--warmup", "2"),
            "takes no 'warmup'",
            "leave it out",
        ),
        (("simulate", "a.o", "-m", "sifive-u74", "-c", "tile_h=1"), "a.o has no knobs", "vta:resnet18.c2"),
        (("vta", "space", "resnet18.c2", "--plot", "no/map.png"), "No such file", "mend the path"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], what: str, hint: str, tmp_path: Path) -> None:
    done = simtune(*arguments, "--json", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    error = json.loads(done.stdout)["error"]
    assert what in error["what"]
    assert hint in error["next"]
