// SPDX-License-Identifier: Apache-2.0
// The functional simulator: what a program computes, in an order that its tokens allow.
#pragma once

#include "runtime.hpp"

namespace vta {

// The tensors in memory, packed for the arithmetic; sizes in elements of the core.
struct Tensors {
    std::vector<uint8_t> inp, wgt;
    std::vector<int32_t> bias;
    int64_t inp_size = 0, wgt_size = 0, bias_size = 0, out_size = 0;
};

Tensors pack(const Hardware& hardware, const int8_t* inp, int64_t inp_bytes, const int8_t* wgt, int64_t wgt_bytes,
              const int32_t* bias, int64_t bias_words, int64_t out_bytes);

// Buffers of the core; kept between programs, since filling them is all they need.
class Fsim {
  public:
    explicit Fsim(const Hardware& hardware);

    // Runs the program; the module that goes next is chosen at random among those that can.
    // `first` 0..2 prefers that module instead whenever it can go, -1 leaves all to chance.
    // Throws Failure: OOB, DEADLOCK with the state of the queues, TOKENS, HLS_HAZARD (stage check).
    void run(const Program& program, const Tensors& tensors, int8_t* out, uint64_t seed, int first = -1);

  private:
    void load(const Insn& insn, const Program& program, const Tensors& tensors);
    void store(const Insn& insn, const Tensors& tensors, int8_t* out);
    void compute(const Insn& insn);
    void check_index(const char* what, int64_t most, int64_t depth) const;
    void watch(const Insn& insn, const Uop* uops, size_t count);

    Hardware hardware_;
    Widths widths_;
    std::vector<uint32_t> uop_;
    std::vector<const uint8_t*> inp_, wgt_;  // where in memory each element lies
    std::vector<uint8_t> zero_inp_, zero_wgt_, poison_inp_, poison_wgt_;
    int64_t inp_bytes_, wgt_bytes_;  // of a packed element
    std::vector<int32_t> acc_;
    std::vector<Uop> decoded_;
    std::vector<int64_t> written_;  // when the pipeline took an accumulator last
    int64_t clock_ = 0;
};

// The state of the queues when no module can go on, as text.
std::string describe(const Program& program, const Widths& widths, const std::vector<uint32_t> (&lists)[3],
                     const size_t (&at)[3], const int64_t (&tokens)[5]);

}  // namespace vta
