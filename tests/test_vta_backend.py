# SPDX-License-Identifier: Apache-2.0
"""The accelerator from Python: machines and their files, layers, the backend, published figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from vta_helpers import conv, valid_configs

from simtune.errors import ConfigurationError, MachineFileError
from simtune.jobs import Status
from simtune.vta import Backend, features, load_layer, load_machine, space, validity
from simtune.vta.backend import counter_names
from simtune.vta.counters import FEATURES, SCHEMA, VtaCounters
from simtune.vta.hwspec import FILES, list_machines
from simtune.vta.layers import LAYERS

SIM = load_machine("vta-sim")
PUBLISHED = json.loads(
    (Path(__file__).parents[1] / "benchmarks" / "data" / "vta" / "published_configs.json").read_text()
)


# ---- machines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_machines())
def test_built_in_machines_load(name: str) -> None:
    machine = load_machine(name)
    assert machine.name == name
    assert machine.description
    assert load_machine(name).digest() == machine.digest()


def test_the_default_core_is_the_shipped_one() -> None:
    hardware = SIM.hardware
    assert hardware.config_string == "1x16_i8w8a32_15_15_18_17"
    depths = (hardware.uop_depth, hardware.inp_depth, hardware.wgt_depth, hardware.acc_depth)
    assert depths == (8192, 2048, 1024, 2048)
    assert load_machine("vta-4x8").hardware.config_string == "4x8_i8w8a32_15_16_16_18"


def test_digests_tell_machines_apart() -> None:
    machines = [load_machine(name) for name in list_machines()]
    assert len({machine.digest() for machine in machines}) == len(machines)
    described = dataclasses.replace(SIM, description="something else")
    assert described.digest() == SIM.digest()


BASE = 'clock_hz = 100e6\n[hardware]\npreset = "1x16"\n{hardware}\n[timing]\npreset = "chisel21"\n{timing}\n'


@pytest.mark.parametrize(
    ("hardware", "timing", "message"),
    [
        ("acc_bytes = 1000", "", "hardware.acc_bytes is 1000; allowed: a power of two"),
        ('inp_bytes = "64K"', "", "indices of 32 bits together; inp, wgt and acc have 12 [+] 10 [+] 11"),
        ('acc_bytes = "256K"\nwgt_bytes = "64K"', "", "at most 2048 accumulators"),
        ("block = 12", "", "hardware.block is 12; allowed: a power of two"),
        ("uop_core_entries = 9000", "", "uop_core_entries is 9000; allowed: an integer from 1 to 8192"),
        ('hls_hazard = "no"', "", "hls_hazard is 'no'; allowed: true or false"),
        ("inp_byte = 3", "", "inp_byte is not a known key.*\n.*did you mean 'hardware.inp_bytes'"),
        ("", "bus_bytes = 12", "timing.bus_bytes is 12; allowed: a power of two"),
        ("", "max_beats = 0", "timing.max_beats is 0; allowed: an integer from 1 to 4096"),
        ("", "gemm_ii = 1.5", "timing.gemm_ii is 1.5; allowed: an integer"),
        ("", "shared_port = 1", "timing.shared_port is 1; allowed: true or false"),
        ("", "beat_cycles = -1", "timing.beat_cycles is -1; allowed: a number"),
        ("", "gem_ii = 1", "gem_ii is not a known key.*\n.*did you mean 'timing.gemm_ii'"),
    ],
)
def test_wrong_presets_name_file_key_and_what_is_allowed(
    tmp_path: Path, hardware: str, timing: str, message: str
) -> None:
    file = tmp_path / "vta-mine.toml"
    file.write_text(BASE.format(hardware=hardware, timing=timing))
    with pytest.raises(MachineFileError, match=message) as caught:
        load_machine(file)
    assert str(file) in caught.value.what


def test_a_machine_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "vta-mine.toml"
    file.write_text(BASE.format(hardware='inp_bytes = "16K"', timing="gemm_ii = 2"))
    machine = load_machine(str(file))
    assert (machine.name, machine.hardware.inp_bytes, machine.timing.gemm_ii) == ("vta-mine", 16384, 2)
    layer = load_layer("resnet18.c10")
    config = valid_configs(layer, machine)[-1]
    slow, fast = (Backend(layer, m).evaluate([config])[0] for m in (machine, load_machine("vta-inp14")))
    assert slow.ok
    assert slow.cycles is not None
    assert fast.cycles is not None
    assert slow.cycles > fast.cycles


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vta-pynk", "there is no VTA machine 'vta-pynk'.*\n.*did you mean 'vta-pynq'"),
        ("none/vta-x.toml", "there is no VTA machine file"),
    ],
)
def test_unknown_machines(name: str, message: str) -> None:
    with pytest.raises(MachineFileError, match=message):
        load_machine(name)


def test_presets_that_go_in_circles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b.toml"\n')
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n')
    file = tmp_path / "vta-x.toml"
    file.write_text('clock_hz = 1e8\n[hardware]\npreset = "a.toml"\n[timing]\npreset = "chisel21"\n')
    with pytest.raises(MachineFileError, match="'extends' is circular"):
        load_machine(file)


def test_every_preset_is_used_or_loads(tmp_path: Path) -> None:
    for kind, fixed in (("hardware", 'timing]\npreset = "pynq'), ("timing", 'hardware]\npreset = "1x16')):
        for path in (FILES / kind).glob("*.toml"):
            file = tmp_path / "vta-y.toml"
            file.write_text(f'clock_hz = 1e8\n[{kind}]\npreset = "{path.stem}"\n[{fixed}"\n')
            assert load_machine(file).name == "vta-y"


# ---- layers ---------------------------------------------------------------------------------------


def test_layer_tables() -> None:
    families = [name.split(".")[0] for name in LAYERS]
    assert (families.count("resnet18"), families.count("deepbench")) == (10, 13)
    assert len({layer.form for layer in LAYERS.values()}) == len(LAYERS)
    for layer in LAYERS.values():
        assert load_layer(f"vta:{layer.name}") is layer
        again = load_layer(layer.form)
        assert dataclasses.replace(again, name=layer.name) == layer
        assert space(layer, SIM).size > 30


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18.c12", "is no layer for VTA\n.*did you mean"),
        ("conv2d:x=3", "conv2d has no 'x'"),
        ("conv2d:h=0", "h is '0'; allowed: 1 to"),
        ("conv2d:h=", "h is ''"),
        ("dense:ci=99999999", "ci is '99999999'"),
        ("conv2d:k=3,pad=3", "padding must be smaller than the kernel"),
        ("conv2d:h=2,k=5", "kernel is larger than the padded input"),
    ],
)
def test_layers_that_make_no_sense(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_layer(name)


def test_layers_that_would_take_all_memory_are_refused() -> None:
    for form in ("conv2d:h=4096,ci=64,co=64", "conv2d:h=16384,stride=16384,ci=16", "dense:ci=16384,co=16384"):
        with pytest.raises(ConfigurationError, match="too large to simulate"):
            space(load_layer(form), SIM)


# ---- backend --------------------------------------------------------------------------------------


def test_counters_have_the_schema_of_the_package() -> None:
    assert counter_names() == list(SCHEMA)
    assert not any(name.startswith("t.") for name in FEATURES)
    with pytest.raises(KeyError, match="not in VTA's counter schema"):
        VtaCounters({"instructions": 1.0})


def test_a_result_holds_what_is_known() -> None:
    backend = Backend(load_layer("resnet18.c2"), SIM)
    good, bad = backend.evaluate([backend.space.config(1410), backend.space.config(7)])
    assert (good.status, good.stage, good.code) == (Status.OK, "", "")
    assert good.cycles == 561_583
    assert good.seconds == pytest.approx(good.cycles / 100e6)
    assert set(good.counters) == set(SCHEMA)
    assert good.counters["gemm.uops"] == 56 * 56 * 9 * 4 * 4
    assert good.counters["out.bytes"] == 56 * 56 * 64
    assert isinstance(good.counters, VtaCounters)
    assert set(good.counters.features()) == set(FEATURES)
    assert (bad.ok, bad.cycles, bad.seconds, dict(bad.counters)) == (False, None, None, {})
    assert bad.status is Status.INVALID


def test_batches_and_single_configurations_give_the_same() -> None:
    layer = load_layer("resnet18.c10")
    points = space(layer, SIM)
    chosen = [points.config(index) for index in range(0, points.size, 7)]
    together = Backend(layer, SIM, seed=3).evaluate(chosen, jobs=3)
    alone = [Backend(layer, SIM, seed=3).evaluate([config])[0] for config in chosen[:12]]
    plain = [dataclasses.replace(result, wall_s=0) for result in together]
    assert plain[:12] == [dataclasses.replace(result, wall_s=0) for result in alone]
    assert all(result.wall_s > 0 for result in together)


def test_the_first_evaluation_checks_and_later_ones_need_not() -> None:
    layer = load_layer("resnet18.c8")
    config = valid_configs(layer, SIM)[-1]
    backend = Backend(layer, SIM, check="first")
    points = [backend.space.index(config)]
    assert backend._flags(points).tolist() == [1]
    first = backend.evaluate([config])[0]
    assert backend._flags(points).tolist() == [0]
    assert dataclasses.replace(backend.evaluate([config])[0], wall_s=0) == dataclasses.replace(
        first, wall_s=0
    )
    assert Backend(layer, SIM, check="never").evaluate([config])[0].cycles == first.cycles
    with pytest.raises(ConfigurationError, match="allowed: first, always, never"):
        Backend(layer, SIM, check="sometimes")


def test_configurations_outside_of_the_space_are_refused() -> None:
    backend = Backend(load_layer("resnet18.c10"), SIM)
    config = backend.space.config(0)
    for change, message in (({"tile_h": 3}, "tile_h cannot be 3"), ({"tile_x": 1}, "no knob tile_x")):
        for call in (backend.compile, lambda c: backend.evaluate([c])[0], backend.program):
            with pytest.raises(ConfigurationError, match=message):
                call({**config, **change})
    assert backend.evaluate([]) == []


def test_features_are_known_for_every_point() -> None:
    layer = load_layer("resnet18.c9")
    points = space(layer, SIM)
    known = [features(layer, SIM, points.config(index)) for index in range(points.size)]
    assert len({tuple(row) for row in known}) == 1
    table = np.array([list(row.values()) for row in known])
    assert np.isfinite(table).all()
    assert len(np.unique(table, axis=0)) == points.size
    valid = validity.check_all(layer, SIM)
    index = valid.index("")
    counters = Backend(layer, SIM).evaluate([points.config(index)])[0].counters
    for name, counter in (("fill_inp", "fill.inp"), ("tiles", "tiles"), ("reuse", "gemm.reuse")):
        assert known[index][name] == pytest.approx(counters[counter])
    assert known[index]["uops"] == counters["gemm.kernel_uops"]
    assert known[index]["inp_redundancy"] >= counters["inp.redundancy"]  # padding is not loaded


def test_cycles_are_never_features() -> None:
    layer = load_layer("resnet18.c10")
    names = set(features(layer, SIM, space(layer, SIM).config(0))) | set(FEATURES)
    assert not [name for name in names if name == "cycles" or name.startswith("t.") or "busy" in name]


def test_operands_depend_on_the_seed_and_times_do_not() -> None:
    layer = conv(6, ci=32, co=32, k=3, pad=1)
    config = valid_configs(layer, SIM)[0]
    results = [Backend(layer, SIM, seed=seed).evaluate([config])[0] for seed in (0, 1, 2**31)]
    assert len({result.cycles for result in results}) == 1
    assert all(result.ok for result in results)


# ---- published figures ----------------------------------------------------------------------------


def test_resnet18_takes_the_published_cycles_within_5_percent() -> None:
    total = 0
    for row in PUBLISHED["layers"]:
        backend = Backend(load_layer(f"resnet18.{row['layer'].lower()}"), SIM)
        result = backend.evaluate([row["inner_tiles"]])[0]
        assert result.cycles is not None
        total += result.cycles * row["count_in_resnet18"]
    assert total == pytest.approx(7_729_601, rel=0.05)


def test_layers_on_the_pynq_take_the_published_time_within_10_percent() -> None:
    machine = load_machine("vta-pynq")
    known = [row for row in PUBLISHED["layers"] if "pynq_latency_s" in row]
    assert len(known) == 3
    for row in known:
        backend = Backend(load_layer(f"resnet18.{row['layer'].lower()}"), machine)
        assert backend.evaluate([row["inner_tiles"]])[0].seconds == pytest.approx(
            row["pynq_latency_s"], rel=0.1
        )
