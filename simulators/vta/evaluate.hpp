// SPDX-License-Identifier: Apache-2.0
// Many configurations at once: lower, emit, run, compare, time, count.
#pragma once

#include "counters.hpp"
#include "fsim.hpp"

namespace vta {

struct Verdict {
    Stage stage = Stage::ok;
    Code code = Code::ok;
    std::string message;
    int64_t cycles = -1;
    double seconds = 0;  // of this evaluation
};

struct Request {
    Layer layer;
    Hardware hardware;
    Timing timing;
    const Config* configs = nullptr;
    const uint8_t* check = nullptr;  // per configuration: run the functional simulator
    int64_t count = 0;
    const Tensors* tensors = nullptr;
    const int8_t* expected = nullptr;
    const uint64_t* seeds = nullptr;  // per configuration
    int jobs = 1;
};

// `counters` has counter_names().size() values per configuration; those of failures stay untouched.
void evaluate(const Request& request, Verdict* verdicts, double* counters);

// Instantiates and lowers, and makes code if `make_code`; runs nothing.
void compile(const Request& request, bool make_code, Verdict* verdicts);

}  // namespace vta
