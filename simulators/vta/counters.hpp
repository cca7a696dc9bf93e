// SPDX-License-Identifier: Apache-2.0
// What is counted of a program: from its instructions alone, and from its timed run.
#pragma once

#include "emit.hpp"
#include "tsim.hpp"

namespace vta {

// Names in the order of the values. Those that start with "t." come from the timed run.
const std::vector<std::string>& counter_names();

void count(const Program& program, const Hardware& hardware, const Timing& timing, const Layer& layer,
           const Plan& plan, int64_t uop_misses, const Timed& timed, double* values);

}  // namespace vta
