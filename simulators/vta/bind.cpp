// SPDX-License-Identifier: Apache-2.0
// The Python module `_vta`. Every call that works releases the interpreter lock.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>

#include "evaluate.hpp"
#include "kernels.hpp"

namespace py = pybind11;
using namespace vta;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

py::tuple as_tuple(const Program& program) {
    py::array_t<uint64_t> insns({py::ssize_t(program.insns.size()), py::ssize_t(2)});
    if (!program.insns.empty())
        std::memcpy(insns.mutable_data(), program.insns.data(), program.insns.size() * sizeof(Word));
    py::array_t<uint32_t> uops(py::ssize_t(program.uops.size()));
    if (!program.uops.empty()) std::memcpy(uops.mutable_data(), program.uops.data(), program.uops.size() * 4);
    py::array_t<int64_t> segments(py::ssize_t(program.segments.size()));
    std::copy(program.segments.begin(), program.segments.end(), segments.mutable_data());
    return py::make_tuple(insns, uops, segments);
}

std::vector<Word> words(const Array<uint64_t>& insns) {
    if (insns.ndim() != 2 || insns.shape(1) != 2) throw std::invalid_argument("instructions are an array of n x 2");
    std::vector<Word> list(size_t(insns.shape(0)));
    if (!list.empty()) std::memcpy(list.data(), insns.data(), list.size() * sizeof(Word));
    return list;
}

Program as_program(const Array<uint64_t>& insns, const Array<uint32_t>& uops, const Array<int64_t>& segments) {
    Program program;
    program.insns = words(insns);
    program.uops.assign(uops.data(), uops.data() + uops.size());
    program.segments.assign(segments.data(), segments.data() + segments.size());
    int64_t last = 0;
    for (int64_t end : program.segments) {
        if (end < last || end > int64_t(program.insns.size())) throw std::invalid_argument("segments do not ascend");
        last = end;
    }
    return program;
}

Tensors as_tensors(const Hardware& hardware, const Array<int8_t>& inp, const Array<int8_t>& wgt,
                   const Array<int32_t>& bias, int64_t out_bytes) {
    return pack(hardware, inp.data(), inp.size(), wgt.data(), wgt.size(), bias.data(), bias.size(), out_bytes);
}

std::vector<Config> as_configs(const Array<int64_t>& array) {
    if (array.ndim() != 2 || array.shape(1) != 7) throw std::invalid_argument("configurations are an array of n x 7");
    std::vector<Config> configs(size_t(array.shape(0)));
    for (size_t i = 0; i < configs.size(); i++) {
        const int64_t* row = array.data() + 7 * i;
        for (int k = 0; k < 7; k++)
            if (row[k] < 1 || row[k] > 1 << 20) throw std::invalid_argument("a knob is out of range");
        configs[i] = {int(row[0]), int(row[1]), int(row[2]), int(row[3]), int(row[4]), int(row[5]), int(row[6])};
    }
    return configs;
}

py::dict as_dict(const std::vector<Verdict>& verdicts) {
    const py::ssize_t n = py::ssize_t(verdicts.size());
    py::array_t<int> stage(n), code(n);
    py::array_t<int64_t> cycles(n);
    py::array_t<double> seconds(n);
    py::list messages;
    for (py::ssize_t i = 0; i < n; i++) {
        const Verdict& v = verdicts[size_t(i)];
        stage.mutable_at(i) = int(v.stage);
        code.mutable_at(i) = int(v.code);
        cycles.mutable_at(i) = v.cycles;
        seconds.mutable_at(i) = v.seconds;
        messages.append(v.message);
    }
    py::dict result;
    result["stage"] = stage;
    result["code"] = code;
    result["cycles"] = cycles;
    result["seconds"] = seconds;
    result["messages"] = messages;
    return result;
}

py::dict evaluate_all(const Hardware& hardware, const Timing& timing, const Layer& layer,
                      const Array<int64_t>& configs, const Array<uint8_t>& check, const Tensors& tensors,
                      const Array<int8_t>& expected, const Array<uint64_t>& seeds, int jobs) {
    const std::vector<Config> list = as_configs(configs);
    for (py::ssize_t i = 0; i < check.size(); i++)
        if (check.data()[i] && tensors.out_size * hardware.batch * hardware.block != expected.size())
            throw std::invalid_argument("a check needs operands and the right answer");
    if (check.size() != py::ssize_t(list.size()) || seeds.size() != check.size())
        throw std::invalid_argument("one check flag and one seed per configuration");
    Request request{layer, hardware, timing, list.data(), check.data(), int64_t(list.size()),
                    &tensors, expected.data(), seeds.data(), jobs};
    std::vector<Verdict> verdicts(list.size());
    py::array_t<double> counters({py::ssize_t(list.size()), py::ssize_t(counter_names().size())});
    double* values = counters.mutable_data();
    {
        py::gil_scoped_release release;
        evaluate(request, verdicts.data(), values);
    }
    py::dict result = as_dict(verdicts);
    result["counters"] = counters;
    return result;
}

py::dict compile_all(const Hardware& hardware, const Layer& layer, const Array<int64_t>& configs, bool make_code) {
    const std::vector<Config> list = as_configs(configs);
    Request request;
    request.layer = layer;
    request.hardware = hardware;
    request.configs = list.data();
    request.count = int64_t(list.size());
    std::vector<Verdict> verdicts(list.size());
    {
        py::gil_scoped_release release;
        compile(request, make_code, verdicts.data());
    }
    return as_dict(verdicts);
}

// Runs `work` without the lock; what fails is (stage, code, message), otherwise (0, 0, "").
template <typename Work>
py::tuple verdict_of(Work work) {
    int stage = 0, code = 0;
    std::string message;
    {
        py::gil_scoped_release release;
        try {
            work();
        } catch (const Failure& failure) {
            stage = int(failure.stage);
            code = int(failure.code);
            message = failure.what();
        }
    }
    return py::make_tuple(stage, code, message);
}

py::tuple emit_one(const Hardware& hardware, const Layer& layer, const Array<int64_t>& config) {
    const Config chosen = as_configs(config).at(0);
    Program program;
    py::tuple verdict = verdict_of([&] { program = emit(layer, hardware, lower(layer, hardware, chosen)); });
    return py::make_tuple(verdict, as_tuple(program));
}

py::tuple run_fsim(const Hardware& hardware, const Array<uint64_t>& insns, const Array<uint32_t>& uops,
                   const Array<int64_t>& segments, const Array<int8_t>& inp, const Array<int8_t>& wgt,
                   const Array<int32_t>& bias, Array<int8_t> out, uint64_t seed, int first, int repeat) {
    const Program program = as_program(insns, uops, segments);
    const Tensors tensors = as_tensors(hardware, inp, wgt, bias, out.size());
    int8_t* bytes = out.mutable_data();
    Fsim simulator(hardware);
    double best = 1e9;
    py::tuple verdict;
    for (int run = 0; run < std::max(1, repeat); run++) {
        const auto start = std::chrono::steady_clock::now();
        verdict = verdict_of([&] { simulator.run(program, tensors, bytes, seed, first); });
        best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return py::make_tuple(verdict, out, best);
}

py::tuple run_tsim(const Hardware& hardware, const Timing& timing, const Array<uint64_t>& insns,
                   const Array<uint32_t>& uops, const Array<int64_t>& segments, bool trace) {
    const Program program = as_program(insns, uops, segments);
    Timed timed;
    py::tuple verdict = verdict_of([&] { timed = simulate(program, hardware, timing, trace); });
    py::array_t<int64_t> spans({py::ssize_t(timed.spans.size()), py::ssize_t(4)});
    for (size_t i = 0; i < timed.spans.size(); i++) {
        const Span& span = timed.spans[i];
        int64_t* row = spans.mutable_data() + 4 * i;
        row[0] = span.issue, row[1] = span.start, row[2] = span.end, row[3] = span.bus_wait;
    }
    return py::make_tuple(verdict, timed.cycles, timed.lost_tokens, spans);
}

std::vector<std::string> disassemble_all(const Hardware& hardware, const Array<uint64_t>& insns) {
    const Widths widths(hardware);
    std::vector<std::string> lines;
    for (const Word& word : words(insns)) lines.push_back(disassemble(decode(word, widths)));
    return lines;
}

py::tuple assemble_all(const Hardware& hardware, const std::vector<std::string>& lines) {
    const Widths widths(hardware);
    py::array_t<uint64_t> insns({py::ssize_t(lines.size()), py::ssize_t(2)});
    uint64_t* words = insns.mutable_data();
    py::tuple verdict = verdict_of([&] {
        for (size_t i = 0; i < lines.size(); i++) {
            const Word word = encode(assemble(lines[i]), widths);
            words[2 * i] = word[0];
            words[2 * i + 1] = word[1];
        }
    });
    return py::make_tuple(verdict, insns);
}

}  // namespace

PYBIND11_MODULE(_vta, m) {
    m.doc() = "Emitter, functional and timing simulator of the Versatile Tensor Accelerator.";
    py::class_<Hardware>(m, "Hardware")
        .def(py::init<>())
        .def_readwrite("batch", &Hardware::batch)
        .def_readwrite("block", &Hardware::block)
        .def_readwrite("uop_depth", &Hardware::uop_depth)
        .def_readwrite("inp_depth", &Hardware::inp_depth)
        .def_readwrite("wgt_depth", &Hardware::wgt_depth)
        .def_readwrite("acc_depth", &Hardware::acc_depth)
        .def_readwrite("uop_core_depth", &Hardware::uop_core_depth)
        .def_readwrite("hls_hazard", &Hardware::hls_hazard)
        .def_readwrite("insn_limit", &Hardware::insn_limit)
        .def_readwrite("uop_limit", &Hardware::uop_limit);
    py::class_<Timing>(m, "Timing")
        .def(py::init<>())
        .def_readwrite("bus_bytes", &Timing::bus_bytes)
        .def_readwrite("max_beats", &Timing::max_beats)
        .def_readwrite("fetch_beats", &Timing::fetch_beats)
        .def_readwrite("beat_milli", &Timing::beat_milli)
        .def_readwrite("rd_ov", &Timing::rd_ov)
        .def_readwrite("wr_ov", &Timing::wr_ov)
        .def_readwrite("out_read", &Timing::out_read)
        .def_readwrite("lat", &Timing::lat)
        .def_readwrite("outstanding", &Timing::outstanding)
        .def_readwrite("shared_port", &Timing::shared_port)
        .def_readwrite("pad_overlap", &Timing::pad_overlap)
        .def_readwrite("pad_cycles", &Timing::pad_cycles)
        .def_readwrite("gemm_ii", &Timing::gemm_ii)
        .def_readwrite("gemm_ov", &Timing::gemm_ov)
        .def_readwrite("alu_imm", &Timing::alu_imm)
        .def_readwrite("alu_tt", &Timing::alu_tt)
        .def_readwrite("alu_ov", &Timing::alu_ov)
        .def_readwrite("insn_ov", &Timing::insn_ov)
        .def_readwrite("queue_depth", &Timing::queue_depth)
        .def_readwrite("token_max", &Timing::token_max)
        .def_readwrite("token_lost", &Timing::token_lost)
        .def_readwrite("cycle_limit", &Timing::cycle_limit);
    py::class_<Layer>(m, "Layer")
        .def(py::init<>())
        .def_readwrite("dense", &Layer::dense)
        .def_readwrite("n", &Layer::n)
        .def_readwrite("h", &Layer::h)
        .def_readwrite("w", &Layer::w)
        .def_readwrite("ci", &Layer::ci)
        .def_readwrite("co", &Layer::co)
        .def_readwrite("kh", &Layer::kh)
        .def_readwrite("kw", &Layer::kw)
        .def_readwrite("stride", &Layer::stride)
        .def_readwrite("ph", &Layer::ph)
        .def_readwrite("pw", &Layer::pw)
        .def_readwrite("oh", &Layer::oh)
        .def_readwrite("ow", &Layer::ow)
        .def_readwrite("shift", &Layer::shift);
    py::class_<Tensors>(m, "Tensors").def(py::init<>());
    m.def("pack", &as_tensors);
    m.def("counter_names", &counter_names);
    m.def("gemm_kind", &gemm_kind);
    m.def("use_gemm", &use_gemm);
    m.def("evaluate", &evaluate_all);
    m.def("compile", &compile_all);
    m.def("emit", &emit_one);
    m.def("run_fsim", &run_fsim);
    m.def("run_tsim", &run_tsim);
    m.def("disassemble", &disassemble_all);
    m.def("assemble", &assemble_all);
}
