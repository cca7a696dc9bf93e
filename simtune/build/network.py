# SPDX-License-Identifier: Apache-2.0
"""A compiled Relax network as one bare executable: all kernels and the order in which they run.

Relax's virtual machine needs TVM's runtime library, which does not exist for a bare target. A
static network is a sequence of kernel calls, though, and the harness can run such a plan itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from simtune.build.image import Plan, Role, Step, Tensor
from simtune.build.inputs import Array, numpy_dtype
from simtune.build.link import linker
from simtune.errors import ConfigurationError, InputFileError, SimtuneError
from simtune.execution.scratch import scratch_folder
from simtune.jobs import Limits, Outcome, SimJob
from simtune.machines.model import Machine
from simtune.simulators.base import Simulator, get_simulator


@dataclass(frozen=True)
class Network:
    """A network linked for one machine.

    Attributes:
        executable: static ELF.
        plan: its tensors and kernel calls.
        machine: what it was compiled for.
        inputs: parameter names of the Relax function to tensor numbers, in order.
        constants: values that the compiler put into the program, by tensor number.
    """

    executable: Path
    plan: Plan
    machine: Machine
    inputs: Mapping[str, int]
    constants: Mapping[int, Array]

    def run(
        self,
        values: Mapping[str, Array] | Sequence[Array],
        simulator: str | Simulator = "qemu",
        limits: Limits | None = None,
    ) -> tuple[list[Array], Outcome]:
        """Runs the network once in a simulator.

        Args:
            values: arrays for all parameters of the function, by name or in order.
            simulator: name of an adapter, or a `Simulator`.
            limits: bounds on the simulation.

        Returns:
            The outputs, and the outcome with the counters of the whole network.

        Raises:
            ConfigurationError: a value is missing, or has the wrong shape or type.
            SimtuneError: the simulation did not end well.
        """
        adapter = get_simulator(simulator) if isinstance(simulator, str) else simulator
        folder = scratch_folder("network")
        try:
            arguments: list[str] = []
            for number, array in self._numbered(values).items():
                path = folder / f"{number}.bin"
                path.write_bytes(np.ascontiguousarray(array).tobytes())
                arguments += ["--input", f"{number}={path}"]
            dump = folder / "outputs.bin"
            job = SimJob(
                self.executable,
                self.machine,
                (*arguments, "--dump", str(dump)),
                limits or Limits(wall_s=600, cpu_s=600),
                scratch=folder,
            )
            outcome = adapter.run(job)
            if not outcome.ok:
                raise SimtuneError(
                    f"running the network ended with {outcome.status}: {outcome.error}", outcome.command
                )
            return self._outputs(dump.read_bytes()), outcome
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _numbered(self, values: Mapping[str, Array] | Sequence[Array]) -> dict[int, Array]:
        if not isinstance(values, Mapping):
            if len(values) != len(self.inputs):
                raise ConfigurationError(f"the network takes {len(self.inputs)} values, got {len(values)}")
            values = dict(zip(self.inputs, values, strict=True))
        numbered = dict(self.constants)
        for name, number in self.inputs.items():
            tensor = self.plan.tensors[number]
            if name not in values:
                raise ConfigurationError(
                    f"no value for '{name}' ({tensor})", "give an array for every parameter"
                )
            array = np.asarray(values[name])
            if array.shape != tensor.shape or array.dtype != numpy_dtype(tensor):
                raise ConfigurationError(
                    f"'{name}' is {array.dtype}{array.shape}, the network takes {tensor}"
                )
            numbered[number] = array
        return numbered

    def _outputs(self, data: bytes) -> list[Array]:
        outputs, position = [], 0
        for tensor in self.plan.tensors:
            if tensor.role is Role.OUTPUT:
                part = data[position : position + tensor.nbytes]
                outputs.append(np.frombuffer(part, numpy_dtype(tensor)).reshape(tensor.shape))
                position += tensor.nbytes
        return outputs


def compile_network(
    module: Any, machine: Machine, out: Path, database: Any = None, function: str = "forward"
) -> Network:
    """Compiles a Relax module whose function only calls kernels of static shape.

    Args:
        module: after legalisation and fusion, such as `relax.get_pipeline("zero")` gives.
        machine: what to compile for.
        out: path of the executable.
        database: MetaSchedule database whose best schedules are applied; None leaves kernels as
            they are.
        function: name of the Relax function to run.

    Raises:
        InputFileError: the function does something else than calling kernels.
        ToolMissingError: no linker for the machine.
    """
    import tvm
    from tvm import relax, tirx
    from tvm.runtime.executable import Executable
    from tvm.target import Target
    from tvm.tirx import build

    target = Target(dict(machine.target))
    if database is not None:
        with target, database, tvm.transform.PassContext(opt_level=3):
            module = relax.transform.MetaScheduleApplyDatabase()(module)
    builder = _PlanBuilder(module[function])
    kernels = {
        name.name_hint: kernel.with_attr("global_symbol", name.name_hint)
        for name, kernel in module.functions_items()
        if isinstance(kernel, tirx.PrimFunc) and name.name_hint in builder.kernels
    }
    with target:
        library = build(tvm.IRModule(kernels), target=target)
    library = library.mod if isinstance(library, Executable) else library
    folder = scratch_folder("network")
    try:
        library.write_to_file(str(folder / "network.o"), "o")
        linker(machine.isa.name).link([folder / "network.o"], builder.plan, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Network(out, builder.plan, machine, builder.inputs, builder.constants)


class _PlanBuilder:
    """Walks a Relax function and numbers its tensors."""

    def __init__(self, function: Any) -> None:
        self._tensors: list[Tensor] = []
        self._steps: list[Step] = []
        self._names: dict[str, list[int]] = {}
        self.inputs: dict[str, int] = {}
        self.constants: dict[int, Array] = {}
        for parameter in function.params:
            name = str(parameter.name)
            self.inputs[name] = self._add(parameter.ty)[0]
            self._names[name] = [self.inputs[name]]
        for block in function.body.blocks:
            for binding in block.bindings:
                self._names[str(binding.var.name)] = self._value(binding.value, binding.var)
        for number in self._value(function.body.body, None):
            if self._tensors[number].role is not Role.TEMPORARY:
                raise InputFileError(
                    "the network returns one of its inputs unchanged", "return computed tensors only"
                )
            self._tensors[number] = replace(self._tensors[number], role=Role.OUTPUT)

    @property
    def plan(self) -> Plan:
        """The finished plan."""
        return Plan(tuple(self._tensors), tuple(self._steps))

    @property
    def kernels(self) -> set[str]:
        """Names of the kernels that are called."""
        return {step.kernel for step in self._steps}

    def _add(self, ty: Any, role: Role = Role.INPUT) -> list[int]:
        fields = getattr(ty, "fields", None)
        if fields is not None:
            return [number for field in fields for number in self._add(field, role)]
        try:
            shape = tuple(int(extent) for extent in ty.shape)
        except TypeError:
            raise InputFileError(
                f"a tensor of the network has no static shape ({ty})", "bind the shapes"
            ) from None
        self._tensors.append(Tensor(str(ty.dtype), shape, role))
        return [len(self._tensors) - 1]

    def _value(self, value: Any, var: Any) -> list[int]:
        import tvm
        from tvm import relax

        if isinstance(value, tvm.ir.Constant):
            (number,) = self._add(value.ty)
            self.constants[number] = value.data.numpy()
            return [number]
        if isinstance(value, relax.Tuple):
            return [number for field in value.fields for number in self._value(field, None)]
        if isinstance(value, relax.TupleGetItem):
            return [self._value(value.tuple_value, None)[int(value.index)]]
        if getattr(getattr(value, "op", None), "name", "") == "relax.call_tir":
            kernel, arguments = value.args[0].name_hint, self._value(value.args[1], None)
            results = self._add(var.ty, Role.TEMPORARY)
            self._steps.append(Step(kernel, (*arguments, *results)))
            return results
        name = str(getattr(value, "name", ""))
        if name in self._names:
            return self._names[name]
        raise InputFileError(
            f"the network does something else than calling a kernel: {str(value)[:200]}",
            "legalise and fuse it first: relax.get_pipeline('zero')(module)",
        )
