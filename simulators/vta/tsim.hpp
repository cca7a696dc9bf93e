// SPDX-License-Identifier: Apache-2.0
// The timing simulator: events of the fetch unit, the three modules and the memory bus.
#pragma once

#include "runtime.hpp"

namespace vta {

// When one instruction left its queue, began to work (its tokens were there), and ended.
struct Span {
    int64_t issue = 0, start = 0, end = 0;
    int64_t bus_wait = 0;  // cycles in which another one had the bus
};

struct ModuleTimes {
    int64_t busy = 0, wait_token = 0, wait_insn = 0, wait_bus = 0;
};

struct Timed {
    int64_t cycles = 0;  // launch to the end of FINISH
    ModuleTimes modules[3];
    int64_t bus_busy = 0, bursts = 0;
    int64_t most_tokens[4] = {}, lost_tokens = 0;
    std::vector<Span> spans;  // per instruction, when asked for
};

// Throws Failure: DEADLOCK with the state of the queues, or TIMEOUT.
Timed simulate(const Program& program, const Hardware& hardware, const Timing& timing, bool trace = false);

}  // namespace vta
