# SPDX-License-Identifier: Apache-2.0
"""Stands where gem5 would: answers like gem5 24 did, with recorded statistics.

What it is given is checked as far as it goes: the job file, the m5ops in the executable. It is no
simulator: gem5 itself takes hours to build, and the tests say that they run against recordings.
"""

import json
import lzma
import os
import sys
from pathlib import Path

DATA = Path(__file__).parent / "data" / "gem5"


def main() -> int:
    if "--build-info" in sys.argv:
        print("Build information:\n\ngem5 version 24.0.0.1\nbuild options:\n    USE_ARM_ISA = False")
        print("    USE_RISCV_ISA = True\n    USE_X86_ISA = False")
        return 0
    out = Path(next(a for a in sys.argv if a.startswith("--outdir=")).partition("=")[2])
    script, job_file = sys.argv[-2:]
    assert Path(script).name == "system.py"
    job = json.loads(Path(job_file).read_text())
    code = Path(job["executable"]).read_bytes()
    assert (0x7B | 0x5A << 25).to_bytes(4, "little") in code
    assert (0x7B | 0x5B << 25).to_bytes(4, "little") in code
    mode = os.environ.get("RECORDED_GEM5") or next(iter(job["arguments"]), "ok")
    model = {"AtomicSimpleCPU": "Atomic", "MinorCPU": "MinorU74.switch"}.get(job["model"], "Timing")
    file = DATA / f"conv_n1_c4_h8_o8_k3_s1_p1.{model}.stats.txt.xz"
    recorded = lzma.decompress(file.read_bytes())
    begin = recorded.index(b"---------- Begin", 0 if "switch" in model else recorded.index(b"End Sim"))
    stats = b"\n" + recorded[begin:]
    Path(job["stdout"]).write_text("checksum 1234abcd\nmismatches 0\nend ok\n")
    Path(job["stderr"]).write_text("")
    result = {"regions": 1, "open": False, "cause": "exiting with last active thread context", "code": 0}
    if mode == "wrong":
        result["code"] = 3
    elif mode == "never":
        result["regions"] = 0
    elif mode == "open":
        result |= {"regions": 0, "open": True}
    elif mode == "api":
        result = {"error": "AttributeError: object 'System' has no attribute 'exit_on_work_items'"}
    elif mode == "panic":
        print("panic: Page table fault when accessing virtual address 0", file=sys.stderr)
        os.abort()
    elif mode == "cut":
        stats = stats[: len(stats) // 4]
    (out / "stats.txt").write_bytes(stats)
    if mode != "silent":
        (out / "result.json").write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
