# SPDX-License-Identifier: Apache-2.0
"""gem5 configuration script: one simulated core in system-call emulation, from a job file.

    gem5 --outdir=OUT system.py JOB.json

The job file is written by simtune/simulators/gem5.py. The executable has work_begin and work_end m5ops
in the place of its region marks. Start-up runs on the atomic model; a detailed model takes over at the
begin of the region. Each end of a region dumps the statistics; then the program goes on to its own
check of the answer. What became of it is written to `result.json` in the output folder.

It keeps to what gem5 23 to 25 share: classic caches, no standard library.
"""

import json
import os
import sys

import m5
from m5 import objects

ISAS = {"riscv64": "Riscv", "aarch64": "Arm", "x86_64": "X86"}


def cache(options, shared):
    """A write-back LRU cache with the geometry of the machine file."""
    latency = max(1, int(options["latency"]))
    return objects.Cache(
        size=f"{options['size']}B",
        assoc=options["ways"],
        tag_latency=latency,
        data_latency=latency,
        response_latency=1,
        mshrs=16 if shared else 8,
        tgts_per_mshr=16,
        write_buffers=16 if shared else 8,
        replacement_policy=objects.LRURP(),
    )


def core(job, kind, **more):
    """A core of one model, with the widths of the machine file where the model has them."""
    isa = ISAS[job["isa"]]
    made = getattr(objects, f"{isa}{kind}")(**more)
    if job["vlen"]:
        made.isa = [getattr(objects, f"{isa}ISA")(vlen=job["vlen"])]
    pipeline = job["pipeline"]
    width = pipeline["issue_width"]
    if kind == "MinorCPU":
        made.decodeInputWidth = made.executeInputWidth = width
        made.executeIssueLimit = made.executeCommitLimit = width
    elif kind == "O3CPU":
        for stage in ("fetch", "decode", "rename", "dispatch", "issue", "wb", "commit", "squash"):
            setattr(made, f"{stage}Width", width)
        if pipeline["rob"]:
            made.numROBEntries = pipeline["rob"]
        if pipeline["load_queue"]:
            made.LQEntries = pipeline["load_queue"]
        if pipeline["store_queue"]:
            made.SQEntries = pipeline["store_queue"]
    return made


def build(job):
    """The system: core, caches, bus, memory, process. Returns it with both cores."""
    detailed = job["model"] != "AtomicSimpleCPU"
    system = objects.System(
        mem_mode="atomic",  # until the detailed model takes over
        mem_ranges=[objects.AddrRange(f"{job['memory_bytes']}B")],
        cache_line_size=job["caches"]["l1d"]["line"],
        exit_on_work_items=True,
        mmap_using_noreserve=True,
    )
    system.clk_domain = objects.SrcClockDomain(
        clock=f"{job['clock_hz'] / 1e6:g}MHz", voltage_domain=objects.VoltageDomain()
    )
    system.cpu = core(job, "AtomicSimpleCPU")
    system.membus = objects.SystemXBar()
    system.cpu.icache = cache(job["caches"]["l1i"], False)
    system.cpu.dcache = cache(job["caches"]["l1d"], False)
    system.cpu.icache.is_read_only = True
    system.cpu.icache.cpu_side = system.cpu.icache_port
    system.cpu.dcache.cpu_side = system.cpu.dcache_port
    below = [system.cpu.icache, system.cpu.dcache]
    for level in ("l2", "l3"):
        if level not in job["caches"]:
            continue
        bus, made = objects.L2XBar(), cache(job["caches"][level], True)
        setattr(system, f"{level}bus", bus)
        setattr(system, level, made)
        for above in below:
            above.mem_side = bus.cpu_side_ports
        made.cpu_side = bus.mem_side_ports
        below = [made]
    for above in below:
        above.mem_side = system.membus.cpu_side_ports
    # Without this, changing the core fails: the new one's page walker would hang in the air.
    system.cpu.mmu.connectWalkerPorts(system.membus.cpu_side_ports, system.membus.cpu_side_ports)
    system.cpu.createInterruptController()
    if job["isa"] == "x86_64":
        interrupts = system.cpu.interrupts[0]
        interrupts.pio = system.membus.mem_side_ports
        interrupts.int_requestor = system.membus.cpu_side_ports
        interrupts.int_responder = system.membus.mem_side_ports
    system.system_port = system.membus.cpu_side_ports
    system.mem_ctrl = objects.MemCtrl(dram=objects.DDR4_2400_8x8(range=system.mem_ranges[0]))
    system.mem_ctrl.port = system.membus.mem_side_ports
    system.workload = objects.SEWorkload.init_compatible(job["executable"])
    # The same name on the stack wherever the file lies: addresses, hence counts, depend on it.
    process = objects.Process(
        cmd=["program", *job["arguments"]],
        executable=job["executable"],
        output=job["stdout"],
        errout=job["stderr"],
    )
    system.cpu.workload = process
    system.cpu.createThreads()
    if detailed:
        system.cpu2 = core(job, job["model"], switched_out=True, cpu_id=0)
        system.cpu2.workload = process
        system.cpu2.createThreads()
    return system, detailed


def simulate(system, detailed):
    """Runs to the end; the number of finished regions, the cause of the end and the exit code."""
    regions, inside, switched = 0, False, not detailed
    while True:
        event = m5.simulate()
        cause = event.getCause()
        if cause == "workbegin":
            if not switched:
                m5.switchCpus(system, [(system.cpu, system.cpu2)])
                switched = True
            m5.stats.reset()
            inside = True
        elif cause == "workend":
            if inside:
                m5.stats.dump()
                regions += 1
            inside = False
        else:
            return {"regions": regions, "open": inside, "cause": cause, "code": event.getCode()}


def main():
    with open(sys.argv[1]) as stream:
        job = json.load(stream)
    result = {}
    try:
        system, detailed = build(job)
        root = objects.Root(full_system=False, system=system)
        m5.instantiate()
        result = simulate(root.system, detailed)
    except Exception as error:  # a version of gem5 that lacks something: told apart from a bad candidate
        result = {"error": f"{type(error).__name__}: {error}"}
    with open(os.path.join(m5.options.outdir, "result.json"), "w") as stream:
        json.dump(result, stream)


main()
