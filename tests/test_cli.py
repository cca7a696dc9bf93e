# SPDX-License-Identifier: Apache-2.0
"""The command line as users meet it: help, examples, every verb, and every error they can make."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from process_helpers import environment, scratch_entries, simtune

from simtune.build.toolchain import find
from simtune.cli.main import VERBS
from simtune.machines.model import Machine

WORKLOAD = "matmul:m=16,n=16,k=16"
TENSORS = "float32:16x16,float32:16x16,float32:16x16"
U74 = ("--machine", "sifive-u74")
GROUPS = {
    "machines": ("list", "show"),
    "records": ("list", "show", "check", "export", "salvage"),
    "vta": ("layers", "machines", "space", "disasm", "simulate"),
    "workloads": ("list",),
}
COMMANDS = [(verb,) for verb in VERBS] + [(verb, sub) for verb, subs in GROUPS.items() for sub in subs]


def fails(*arguments: object, cwd: Path, **changes: str) -> dict[str, str]:
    """A user's mistake: exit status 2, one line that says what and one what next, no traceback, and the
    same as JSON."""
    done = simtune(*arguments, "--json", cwd=cwd, **changes)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    error: dict[str, str] = json.loads(done.stdout)["error"]
    assert set(error) == {"kind", "what", "next"}
    hint = f"  next: {error['next']}\n" if error["next"] else ""
    assert done.stderr == f"simtune: {error['what']}\n{hint}"
    assert "\n" not in error["what"]
    return error


def test_without_json_a_mistake_prints_nothing_to_standard_output(tmp_path: Path) -> None:
    done = simtune("simulate", "none.o", *U74, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "simtune: cannot read none.o: No such file or directory\n  next: check the path\n"


# ---- help -----------------------------------------------------------------------------------------

HELP = """
import sys
from simtune.cli.main import cli
cli.main({arguments!r}, prog_name="simtune", standalone_mode=False)
heavy = [name for name in ("tvm", "sklearn", "matplotlib", "scipy") if name in sys.modules]
print("heavy:", heavy)
"""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example_and_imports_nothing_heavy(command: tuple[str, ...]) -> None:
    script = HELP.format(arguments=[*command, "--help"])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout
    assert f"simtune {' '.join(command)}" in done.stdout
    assert done.stdout.endswith("heavy: []\n")
    if command not in [(group,) for group in GROUPS]:
        assert "--json" in done.stdout


@pytest.mark.alone
def test_the_first_help_is_quick(tmp_path: Path) -> None:
    best = 9.0
    for _ in range(3):
        started = time.monotonic()
        done = simtune("--help", cwd=tmp_path)
        best = min(best, time.monotonic() - started)
        assert all(verb in done.stdout for verb in VERBS)
    assert best < 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, tmp_path: Path) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash for its version")
    done = simtune(cwd=tmp_path, _SIMTUNE_COMPLETE=f"{shell}_source")
    assert "_SIMTUNE_COMPLETE" in done.stdout, done.stderr
    if shell == "bash":
        words = {"COMP_WORDS": "simtune workl", "COMP_CWORD": "1"}
        done = simtune(cwd=tmp_path, _SIMTUNE_COMPLETE="bash_complete", **words)
        assert done.stdout == "plain,workloads\n"


def test_version(tmp_path: Path) -> None:
    assert "version" in simtune("--version", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (("tnue",), "did you mean 'tune'?", "simtune --help"),
        (("frobnicate",), "No such command 'frobnicate'", "simtune --help"),
        (("--nope",), "No such option", "simtune --help"),
        (("tune",), "Missing argument 'WORKLOAD'", "simtune tune --help"),
        (("tune", WORKLOAD), "Missing option '--machine'", "simtune tune --help"),
        (("simulate", *U74), "Missing argument 'FILE'", "simtune simulate --help"),
        (("records", "shwo"), "No such command 'shwo'", "simtune records --help"),
        (("machines", "show"), "Missing argument 'MACHINE'", "simtune machines show --help"),
        (("machines", "show", "sifive-u47"), "no machine 'sifive-u47'", "did you mean 'sifive-u74'?"),
        (("machines", "show", "./none.toml"), "no machine file none.toml", "check the path"),
        (("records", "list", "--records", "none.db"), "no record store at none.db", "--records FILE"),
        (("report", "--records", "none.db"), "no record store at none.db", "--records FILE"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: tuple[str, ...], what: str, hint: str, tmp_path: Path
) -> None:
    if arguments[0].startswith("-") or "--json" in arguments:
        done = simtune(*arguments, cwd=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert what in done.stderr
        return
    error = fails(*arguments, cwd=tmp_path)
    assert what in error["what"]
    assert hint in error["next"]
    assert list(tmp_path.iterdir()) == []


# ---- doctor ---------------------------------------------------------------------------------------


def test_doctor_when_all_is_well(qemu: Any, tmp_path: Path) -> None:
    done = simtune("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert report["ok"] is True
    whats = {finding["what"]: finding for finding in report["findings"]}
    assert {"Python", "TVM", "process launcher", "simulator qemu", "linking for riscv64"} <= set(whats)
    assert "runs riscv64, aarch64, x86_64" in whats["simulator qemu"]["details"]
    assert "simtune can tune here" in simtune("doctor", cwd=tmp_path).stdout


def test_doctor_without_any_tools(tmp_path: Path) -> None:
    """An empty PATH and an empty cache: nothing is installed and nothing was built before."""
    changes = {"PATH": str(tmp_path), "SIMTUNE_CACHE": str(tmp_path / "cache")}
    done = simtune("doctor", "--json", cwd=tmp_path, **changes)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is False
    fixes = {finding["what"]: finding["fix"] for finding in report["findings"] if not finding["ok"]}
    assert "gcc-riscv64-linux-gnu" in fixes["linking for riscv64"]
    assert "gcc-aarch64-linux-gnu" in fixes["linking for aarch64"]
    assert "apt-get install" in fixes["simulator qemu"]
    assert "qemu-user" in fixes["simulator qemu"]
    plain = simtune("doctor", cwd=tmp_path, **changes)
    assert plain.returncode == 1
    assert "cannot tune here yet" in plain.stdout
    assert "Traceback" not in plain.stderr
    error = fails("tune", WORKLOAD, *U74, "--no-report", cwd=tmp_path, **changes)
    assert "qemu-riscv64 is not installed" in error["what"]
    assert "apt-get install qemu-user" in error["next"]


# ---- simulate -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, build_default: Any) -> Path:
    """A folder with good and bad inputs."""
    from simtune.machines.load import load_machine

    folder = tmp_path_factory.mktemp("files")
    good: Path = build_default(WORKLOAD, load_machine("sifive-u74"))
    shutil.copy(good, folder / "bare.o")
    shutil.copy(good, folder / "good.o")
    shutil.copy(f"{good}.json", folder / "good.o.json")
    for name, side in {
        "side": "{",
        "list": "[]",
        "shape": '{"kernels": {"main": [["float32", 3, 0]]}}',
    }.items():
        shutil.copy(good, folder / f"{name}.o")
        (folder / f"{name}.o.json").write_text(side)
    data = good.read_bytes()
    (folder / "cut.o").write_bytes(data[: len(data) // 2])
    (folder / "empty.o").touch()
    (folder / "garbage.o").write_bytes(bytes(range(256)) * 20)
    (folder / "text.c").write_text("int main(void) { volatile int s = 0; return s; }\n")
    for isa in ("riscv64", "x86_64"):
        compiler = find(isa).cc
        subprocess.run([compiler, "-static", "text.c", "-o", f"{isa}.elf"], cwd=folder, check=True)
    subprocess.run([find("riscv64").cc, "text.c", "-o", "dynamic.elf"], cwd=folder, check=True)
    subprocess.run([find("riscv64").cc, "-c", "text.c", "-o", "nokernel.o"], cwd=folder, check=True)
    (folder / "cut.elf").write_bytes((folder / "riscv64.elf").read_bytes()[:100_000])
    subprocess.run([find("x86_64").cc, "-c", "text.c", "-o", "foreign.o"], cwd=folder, check=True)
    for name, members in {
        "empty.tar": [],
        "sources.tar": ["text.c"],
        "good.tar": ["bare.o"],
        "mixed.tar": ["bare.o", "foreign.o"],
        "bad.tar": ["garbage.o"],
    }.items():
        with tarfile.open(folder / name, "w") as archive:
            for member in members:
                archive.add(folder / member, member)
    whole = (folder / "good.tar").read_bytes()
    (folder / "cut.tar").write_bytes(whole[: len(data) // 2])
    return folder


@pytest.mark.parametrize(
    ("file", "options", "what", "hint"),
    [
        ("none.o", (), "cannot read none.o: No such file", "check the path"),
        (".", (), "cannot read .: Is a directory", "check the path"),
        ("cut.o", (), "cut.o is cut off", "again"),
        ("empty.o", (), "empty.o is not an ELF file", "give an object"),
        ("garbage.o", (), "garbage.o is not an ELF file", "give an object"),
        ("text.c", (), "text.c is not an ELF file", "give an object"),
        ("side.o", (), "the side file side.o.json is damaged", "remove it"),
        ("list.o", (), "the side file list.o.json is damaged", "remove it"),
        ("shape.o", (), "the side file shape.o.json is damaged", "remove it"),
        ("nokernel.o", (), "defines 0 kernels", "that TVM built"),
        ("foreign.o", (), "foreign.o is for x86_64, sifive-u74 is riscv64", "riscv64"),
        ("cut.elf", (), "cut.elf is cut off", "again"),
        ("dynamic.elf", (), "dynamic.elf is dynamically linked", "-static"),
        ("x86_64.elf", (), "x86_64.elf is for x86_64, sifive-u74 is riscv64", "machines list"),
        ("empty.tar", (), "empty.tar holds no object files", "local builder"),
        ("sources.tar", (), "sources.tar holds no object files", "local builder"),
        ("cut.tar", (), "cut.tar is a damaged tar", "again"),
        ("bad.tar", (), "garbage.o in bad.tar is not an ELF file", "give an object"),
        ("mixed.tar", (), "mixes objects for riscv64, x86_64", "again"),
        ("bare.o", (), "tensors of the kernel are not known", "--args"),
        ("bare.o", ("--args", "float32:16x16"), "Expected 3 arguments", "all tensors in argument order"),
        ("bare.o", ("--args", f"{TENSORS},{TENSORS}"), "Expected 3 arguments", "all tensors"),
        (
            "bare.o",
            ("--args", TENSORS.replace("32", "64")),
            "Mismatched a.dtype on argument #0",
            "all tensors",
        ),
        ("bare.o", ("--args", f"{TENSORS}x2"), "Mismatched", "all tensors"),
        ("bare.o", ("--args", "banana"), "'banana' is no tensor", "float32:1x64"),
        ("bare.o", ("--args", ""), "'' is no tensor", "float32:1x64"),
        ("bare.o", ("--args", "float31:2"), "'float31' is not supported", "use bool, int"),
        ("good.o", ("more",), "good.o is no executable and takes no arguments (more)", "--args"),
        ("good.o", ("--expect", "none"), "'none' does not exist", "--help"),
        ("good.o", ("--expect", "text.c"), "file has not the size of the tensors", "check"),
        ("good.o", ("--simulator", "gem6"), "no simulator is called 'gem6'", "known: "),
        ("good.o", ("--seed", "-1"), "-1 is not in the range", "--help"),
        ("good.o", ("--max-instructions", "0"), "0 is not in the range", "--help"),
        ("good.o", ("--timeout", "0"), "0 is not in the range", "--help"),
        ("good.o", ("--count", "cycles"), "cannot count cycles", "branch, prefetch, blocks, pipeline"),
        ("good.o", ("--jsno",), "No such option", "--help"),
        ("riscv64.elf", ("--args", TENSORS, "--seed", "1"), "--args, --seed is for objects", "after '--'"),
    ],
)
def test_simulate_refuses(
    file: str, options: tuple[str, ...], what: str, hint: str, files: Path, tmp_path: Path
) -> None:
    options = options or (
        ("--args", TENSORS) if file.startswith(("cut", "foreign", "mixed")) and "elf" not in file else ()
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    error = fails("simulate", file, *U74, *options, cwd=files, TMPDIR=str(temporary))
    assert what in error["what"]
    assert hint in error["next"]
    assert "simtune-" not in error["what"], "names a scratch file"
    assert scratch_entries(temporary) == []


def test_simulate_an_object_for_another_machine(files: Path) -> None:
    error = fails("simulate", "good.o", "--machine", "cortex-a72", cwd=files)
    assert "good.o is for riscv64, cortex-a72 is aarch64" in error["what"]


def simulate(*arguments: object, cwd: Path, code: int = 0) -> dict[str, Any]:
    done = simtune("simulate", *U74, "--json", *arguments, cwd=cwd)
    assert done.returncode == code, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_simulate_object_tar_and_executable_count_the_same(files: Path, tmp_path: Path) -> None:
    from simtune.build.artifact import load
    from simtune.build.link import linker

    artifact = load(files / "good.o", tmp_path)
    executable = linker("riscv64").link(artifact.objects, artifact.plan(), tmp_path / "k.elf")
    results = [
        simulate("good.o", cwd=files),
        simulate("bare.o", "--args", TENSORS, cwd=files),
        simulate("good.tar", "--args", TENSORS, cwd=files),
        simulate(executable, "--", "--touch", "--seed", "0", "--warmup", "0", cwd=files),
    ]
    for result in results:
        assert result["status"] == "ok"
        assert result["counters"] == results[0]["counters"]
        assert result["output"]["checksum"] == results[0]["output"]["checksum"]
        assert result["predicted_s"] == results[0]["predicted_s"] > 0
        assert result["machine"] == "sifive-u74"
    counters = results[0]["counters"]
    assert counters["instructions"] > 2 * 16**3
    assert counters["loads"] >= 16**3
    assert counters["store_bytes"] >= 16 * 16 * 4
    text = simtune("simulate", "good.o", *U74, cwd=files).stdout
    assert "instructions" in text
    assert "predicted time" in text


def test_simulate_a_tar_of_tvm(files: Path, tmp_path: Path, u74: Machine) -> None:
    """As TVM's local builder writes it."""
    from simtune import tvm_setup

    tvm_setup.load()
    from tvm.s_tir.meta_schedule.builder.local_builder import default_build, default_export
    from tvm.target import Target

    from simtune.tuning.workloads import parse

    target = Target(dict(u74.target))
    path = Path(default_export(default_build(parse(WORKLOAD).module(), target, None)))
    assert path.suffix == ".tar"
    shutil.move(path, tmp_path / "tvm.tar")
    shutil.rmtree(path.parent)
    result = simulate("tvm.tar", "--args", TENSORS, cwd=tmp_path)
    assert result["output"]["checksum"] == simulate("good.o", cwd=files)["output"]["checksum"]


def test_simulate_with_a_limit_and_a_wrong_answer(files: Path, tmp_path: Path) -> None:
    cut = simulate("good.o", "--max-instructions", "10", cwd=files, code=1)
    assert (cut["status"], cut["stage"], cut["counters"]) == ("timeout", "simulate", None)
    assert "more than 10 instructions" in cut["error"]
    (tmp_path / "zeros").write_bytes(bytes(16 * 16 * 4))
    wrong = simulate("good.o", "--expect", tmp_path / "zeros", cwd=files, code=1)
    assert (wrong["status"], wrong["stage"]) == ("wrong_output", "check")
    assert "good.o" in wrong["command"]
    plain = simtune("simulate", "good.o", *U74, "--expect", tmp_path / "zeros", cwd=files)
    assert plain.stderr.startswith("simtune: wrong_output in check: the output is not the expected one")


# ---- workloads, machines --------------------------------------------------------------------------


def test_workloads(tmp_path: Path) -> None:
    assert "resnet18.conv2_x" in simtune("workloads", "list", cwd=tmp_path).stdout
    data = json.loads(simtune("workloads", "list", "--json", cwd=tmp_path).stdout)
    assert {"name", "kind", "parameters", "operations"} == set(data["named"][0])
    assert {"matmul", "conv2d", "softmax", "depthwise"} <= {row["kind"] for row in data["parametric"]}


def test_machines(tmp_path: Path) -> None:
    rows = json.loads(simtune("machines", "list", "--json", cwd=tmp_path).stdout)["machines"]
    assert {"sifive-u74", "cortex-a72", "x86-64-v3", "host"} <= {row["name"] for row in rows}
    assert "in-order, 2 per cycle" in simtune("machines", "show", "sifive-u74", cwd=tmp_path).stdout
    data = json.loads(simtune("machines", "show", "sifive-u74", "--json", cwd=tmp_path).stdout)
    assert data["isa"]["name"] == "riscv64"


# ---- tune and what follows -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (("matmull", *U74), "'matmull' is no workload", "did you mean matmul"),
        (("matmull:m=4", *U74), "'matmull:m=4' is no workload", "did you mean matmul"),
        (("quicksort", *U74), "'quicksort' is no workload", "workloads list"),
        (("matmul:q=4", *U74), "'q' is no parameter of matmul", "it has m, n, k"),
        (("matmul:m=0", *U74), "m must be a whole number from 1", "matmul:m=16"),
        (("conv2d:k=9,h=3,p=0", *U74), "larger than the padded input", ""),
        ((WORKLOAD, "--machine", "sifive"), "no machine 'sifive'", "did you mean 'sifive-u74'?"),
        ((WORKLOAD, *U74, "--objective", "latncy"), "no counter 'latncy'", "did you mean 'latency'?"),
        ((WORKLOAD, *U74, "--objective", "loads +"), "not an expression", "use counter names"),
        ((WORKLOAD, *U74, "--simulator", "quemu"), "no simulator is called 'quemu'", "qemu"),
        ((WORKLOAD, *U74, "--simulator", "native"), "sifive-u74 is riscv64", "choose a machine"),
        ((WORKLOAD, *U74, "--trials", "0"), "0 is not in the range", "--help"),
        ((WORKLOAD, *U74, "--trials", "many"), "'many' is not a valid integer", "--help"),
        ((WORKLOAD, *U74, "--jobs", "0"), "0 is not in the range", "--help"),
        ((WORKLOAD, *U74, "--batch", "0"), "0 is not in the range", "--help"),
        ((WORKLOAD, *U74, "--search-threads", "0"), "0 is not in the range", "--help"),
        ((WORKLOAD, *U74, "--seed", "-1"), "-1 is not in the range", "--help"),
        ((WORKLOAD, *U74, "--timeout", "0"), "0 is not in the range", "--help"),
        ((WORKLOAD, *U74, "--warmup", "-1"), "-1 is not in the range", "--help"),
        ((WORKLOAD, *U74, "--straggler", "0.5"), "straggler_factor is 0.5", "above 1"),
        ((WORKLOAD, *U74, "--records", "."), "cannot read .: Is a directory", "--records FILE"),
        ((WORKLOAD, *U74, "--work-dir", "file"), "file", "choose another"),
        ((WORKLOAD, *U74, "--records", "file/r.db"), "file", "choose another"),
        ((WORKLOAD, *U74, "--records", "garbage.db"), "garbage.db", ""),
    ],
)
def test_tune_refuses(arguments: tuple[str, ...], what: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "garbage.db").write_bytes(b"no database" * 500)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = simtune("tune", *arguments, "--json", cwd=tmp_path, TMPDIR=str(temporary))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    error = json.loads(done.stdout)["error"]
    assert what in error["what"]
    assert hint in error["next"]
    assert done.stderr.startswith(f"simtune: {error['what']}")
    assert scratch_entries(temporary) == []
    if (tmp_path / "simtune-records.db").exists():
        listed = simtune("records", "list", "--json", cwd=tmp_path)
        runs = json.loads(listed.stdout)["runs"]
        assert runs == [] or "--work-dir" in arguments, "a mistake leaves no run behind"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, qemu: Any) -> tuple[Path, dict[str, Any], str]:
    """A folder with a finished run, what --json said, and the progress."""
    folder = tmp_path_factory.mktemp("tuned")
    done = simtune("tune", WORKLOAD, *U74, "-n", 4, "--batch", 4, "--work-dir", "work", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def test_tune_as_json(tuned: tuple[Path, dict[str, Any], str]) -> None:
    folder, result, errors = tuned
    assert {
        *("run", "workload", "machine", "trials", "failures", "resumed", "gain", "best", "reference"),
        *("timings", "records", "report"),
    } <= set(result)
    assert (result["workload"], result["machine"], result["trials"]) == (WORKLOAD, "sifive-u74", 4)
    assert {"index", "status", "value", "predicted_s", "simulation"} <= set(result["best"])
    assert result["best"]["value"] > 0
    assert result["gain"] == pytest.approx(result["reference"]["value"] / result["best"]["value"])
    assert {"build", "run", "search", "total"} <= set(result["timings"])
    assert (folder / result["report"]).is_file()
    assert errors == "", "with --json, nothing but errors"


def test_tune_in_words_takes_up_the_run(tuned: tuple[Path, dict[str, Any], str]) -> None:
    folder, result, _errors = tuned
    arguments = ("tune", WORKLOAD, *U74, "-n", 4, "--batch", 4, "--work-dir", "work", "--no-report")
    done = simtune(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert f"run {result['run']} taken up, 4 of 4 trials are stored" in done.stderr
    assert "TVM's default schedule" in done.stdout
    assert "4 trials, 4 of them from before, 0 failed" in done.stdout


def test_records_after_a_run(tuned: tuple[Path, dict[str, Any], str]) -> None:
    folder, result, _errors = tuned
    run = result["run"]
    assert run in simtune("records", "list", cwd=folder).stdout
    assert WORKLOAD in simtune("records", "show", run[:6], cwd=folder).stdout
    best = json.loads(simtune("records", "show", f"{run}:best", "--json", cwd=folder).stdout)
    assert best["value"] == result["best"]["value"]
    assert simtune("records", "check", cwd=folder).returncode == 0
    assert simtune("records", "export", "--format", "csv", "-o", "t.csv", cwd=folder).returncode == 0
    assert len((folder / "t.csv").read_text().splitlines()) >= 1 + 4
    exported = simtune("records", "export", "--format", "tvm", "-o", "db", "--json", cwd=folder)
    assert json.loads(exported.stdout)["trials"] >= 4
    assert "no run" in fails("records", "show", "zz", cwd=folder)["what"]


def test_report_after_a_run(tuned: tuple[Path, dict[str, Any], str]) -> None:
    folder, result, _errors = tuned
    done = simtune("report", result["run"][:6], "-o", "page.html", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == result["run"]
    assert "<html" in (folder / "page.html").read_text()[:1000]


def test_tune_without_any_success_fails(tmp_path: Path) -> None:
    done = simtune(
        *("tune", WORKLOAD, *U74, "-n", 1, "--batch", 1, "--timeout", "0.0001", "--no-report"), cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    assert "no candidate succeeded; see 'simtune records show" in done.stdout
    run = json.loads(simtune("records", "list", "--json", cwd=tmp_path).stdout)["runs"][0]["run"]
    shown = simtune("records", "show", f"{run}:1", cwd=tmp_path).stdout
    assert "timeout" in shown
    assert "simtune simulate" in shown


def test_simulate_counts_an_executable_without_marks_as_a_whole(files: Path) -> None:
    result = simulate("riscv64.elf", cwd=files)
    assert result["counters"]["instructions"] > 100
