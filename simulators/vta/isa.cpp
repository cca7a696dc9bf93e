// SPDX-License-Identifier: Apache-2.0
#include "isa.hpp"

#include <cstdlib>
#include <sstream>

namespace vta {
namespace {

int log2_of(int64_t depth) {
    int bits = 0;
    while ((int64_t(1) << bits) < depth) bits++;
    return bits;
}

[[noreturn]] __attribute__((noinline, cold)) void too_wide(const char* field, Code code, int64_t value, int bits) {
    throw Failure(Stage::run, code,
                  std::string(field) + " is " + std::to_string(value) + ", its field has " + std::to_string(bits) +
                      " bits");
}

// Writes fields from bit 0 upwards; no field lies in both words.
class Writer {
  public:
    void put(const char* field, Code code, int64_t value, int bits) {
        if (uint64_t(value) >> bits) too_wide(field, code, value, bits);
        raw(uint64_t(value), bits);
    }
    void raw(uint64_t value, int bits) {
        word_[half_] |= value << at_;
        at_ += bits;
    }
    void high() { half_ = 1, at_ = 0; }
    Word word() const { return word_; }

  private:
    Word word_{};
    int half_ = 0, at_ = 0;
};

class Reader {
  public:
    explicit Reader(const Word& word) : word_(word), rest_(word[0]) {}
    int64_t get(int bits) {
        const uint64_t value = rest_ & ((uint64_t(1) << bits) - 1);
        rest_ >>= bits;
        return int64_t(value);
    }
    void high() { rest_ = word_[1]; }

  private:
    const Word& word_;
    uint64_t rest_;
};

}  // namespace

Widths::Widths(const Hardware& hardware)
    : uop(log2_of(hardware.uop_depth)),
      inp(log2_of(hardware.inp_depth)),
      wgt(log2_of(hardware.wgt_depth)),
      acc(log2_of(hardware.acc_depth)) {}

Word encode(const Insn& insn, const Widths& widths) {
    Writer out;
    out.raw(uint64_t(insn.opcode), 3);
    for (bool flag : {insn.pop_prev, insn.pop_next, insn.push_prev, insn.push_next}) out.raw(flag, 1);
    if (insn.opcode == LOAD || insn.opcode == STORE) {
        out.raw(uint64_t(insn.memory), 3);
        out.put("sram_base", Code::field_base, insn.sram_base, 16);
        out.put("dram_base", Code::field_base, insn.dram_base, 32);
        out.high();
        out.put("y_size", Code::field_size, insn.y_size, 16);
        out.put("x_size", Code::field_size, insn.x_size, 16);
        out.put("x_stride", Code::field_stride, insn.x_stride, 16);
        out.put("y_pad_0", Code::field_pad, insn.y_pad_0, 4);
        out.put("y_pad_1", Code::field_pad, insn.y_pad_1, 4);
        out.put("x_pad_0", Code::field_pad, insn.x_pad_0, 4);
        out.put("x_pad_1", Code::field_pad, insn.x_pad_1, 4);
    } else if (insn.opcode == GEMM || insn.opcode == ALU) {
        out.raw(insn.opcode == GEMM && insn.reset, 1);
        out.put("uop_bgn", Code::field_base, insn.uop_bgn, widths.uop);
        out.put("uop_end", Code::field_base, insn.uop_end, widths.uop + 1);
        out.put("iter_out", Code::field_iter, insn.iter_out, 14);
        out.put("iter_in", Code::field_iter, insn.iter_in, 14);
        out.high();
        const int source = insn.opcode == GEMM ? widths.inp : widths.acc;
        out.put("dst_out", Code::field_factor, insn.dst_out, widths.acc);
        out.put("dst_in", Code::field_factor, insn.dst_in, widths.acc);
        out.put("src_out", Code::field_factor, insn.src_out, source);
        out.put("src_in", Code::field_factor, insn.src_in, source);
        if (insn.opcode == GEMM) {
            out.put("wgt_out", Code::field_factor, insn.wgt_out, widths.wgt);
            out.put("wgt_in", Code::field_factor, insn.wgt_in, widths.wgt);
        } else {
            out.raw(uint64_t(insn.alu_op), 3);
            out.raw(insn.use_imm, 1);
            if (insn.imm < -32768 || insn.imm > 32767) too_wide("imm", Code::field_size, insn.imm, 16);
            out.raw(uint64_t(insn.imm) & 0xffff, 16);
        }
    }
    return out.word();
}

void decode(const Word& word, const Widths& widths, Insn& insn) {
    Reader in(word);
    insn.opcode = int(in.get(3));
    insn.pop_prev = in.get(1);
    insn.pop_next = in.get(1);
    insn.push_prev = in.get(1);
    insn.push_next = in.get(1);
    if (insn.opcode == LOAD || insn.opcode == STORE) {
        insn.memory = int(in.get(3));
        insn.sram_base = in.get(16);
        insn.dram_base = in.get(32);
        in.high();
        insn.y_size = in.get(16);
        insn.x_size = in.get(16);
        insn.x_stride = in.get(16);
        insn.y_pad_0 = in.get(4);
        insn.y_pad_1 = in.get(4);
        insn.x_pad_0 = in.get(4);
        insn.x_pad_1 = in.get(4);
    } else if (insn.opcode == GEMM || insn.opcode == ALU) {
        insn.reset = in.get(1);
        insn.uop_bgn = in.get(widths.uop);
        insn.uop_end = in.get(widths.uop + 1);
        insn.iter_out = in.get(14);
        insn.iter_in = in.get(14);
        in.high();
        const int source = insn.opcode == GEMM ? widths.inp : widths.acc;
        insn.dst_out = in.get(widths.acc);
        insn.dst_in = in.get(widths.acc);
        insn.src_out = in.get(source);
        insn.src_in = in.get(source);
        if (insn.opcode == GEMM) {
            insn.wgt_out = in.get(widths.wgt);
            insn.wgt_in = in.get(widths.wgt);
        } else {
            insn.alu_op = int(in.get(3));
            insn.use_imm = in.get(1);
            insn.imm = int16_t(in.get(16));
        }
    }
}

Insn decode(const Word& word, const Widths& widths) {
    Insn insn;
    decode(word, widths, insn);
    return insn;
}

Module check(const Word& word, size_t index) {
    const int opcode = int(word[0] & 7), memory = int(word[0] >> 7 & 7);
    const bool transfer = opcode == LOAD || opcode == STORE;
    const Module module = opcode == STORE                                              ? M_STORE
                          : opcode == LOAD && (memory == INP || memory == WGT) ? M_LOAD
                                                                                       : M_COMPUTE;
    const char* problem = opcode > ALU || (transfer && memory > ACC8) ? "is unknown"
                          : module == M_LOAD && word[0] & (kPopPrev | kPushPrev)
                              ? "has a token flag towards a module before load"
                          : module == M_STORE && word[0] & (kPopNext | kPushNext)
                              ? "has a token flag towards a module after store"
                              : nullptr;
    if (problem) throw Failure(Stage::run, Code::oob, "instruction " + std::to_string(index) + " " + problem);
    return module;
}

// The source of an ALU micro-op is an accumulator index; where that is wider than an input index,
// its upper bits lie in the field of the weights.
uint32_t encode(const Uop& uop, bool alu, const Widths& widths) {
    uint64_t src = uint64_t(uop.src), wgt = uint64_t(uop.wgt);
    if (alu) {
        wgt = src >> widths.inp;
        src &= (uint64_t(1) << widths.inp) - 1;
    }
    return uint32_t(uint64_t(uop.dst) | src << widths.acc | wgt << (widths.acc + widths.inp));
}

Uop decode(uint32_t word, bool alu, const Widths& widths) {
    Uop uop;
    uop.dst = int(word & ((1u << widths.acc) - 1));
    uop.src = int(word >> widths.acc & ((1u << widths.inp) - 1));
    uop.wgt = int(uint64_t(word) >> (widths.acc + widths.inp) & ((1u << widths.wgt) - 1));
    if (alu) {
        uop.src |= uop.wgt << widths.inp;
        uop.wgt = 0;
    }
    return uop;
}

namespace {

const char* const kMemories[] = {"uop", "wgt", "inp", "acc", "out", "acc8"};
const char* const kAluOps[] = {"min", "max", "add", "shr", "mul"};
const char* const kTokens[3][4] = {  // by module: pop prev, pop next, push prev, push next
    {"", "pop:g2l", "", "push:l2g"},
    {"pop:l2g", "pop:s2g", "push:g2l", "push:g2s"},
    {"pop:g2s", "", "push:s2g", ""},
};

struct FieldOf {
    const char* name;
    int64_t Insn::*member;
};
constexpr FieldOf kTransfer[] = {
    {"sram", &Insn::sram_base}, {"dram", &Insn::dram_base}, {"y", &Insn::y_size},
    {"x", &Insn::x_size},       {"stride", &Insn::x_stride}, {"pad_top", &Insn::y_pad_0},
    {"pad_bottom", &Insn::y_pad_1}, {"pad_left", &Insn::x_pad_0}, {"pad_right", &Insn::x_pad_1},
};
constexpr FieldOf kCompute[] = {
    {"uop_bgn", &Insn::uop_bgn}, {"uop_end", &Insn::uop_end}, {"out", &Insn::iter_out},
    {"in", &Insn::iter_in},      {"dst_out", &Insn::dst_out}, {"dst_in", &Insn::dst_in},
    {"src_out", &Insn::src_out}, {"src_in", &Insn::src_in},   {"wgt_out", &Insn::wgt_out},
    {"wgt_in", &Insn::wgt_in},   {"imm", &Insn::imm},
};

bool is_pad(const FieldOf& field) { return std::string(field.name).rfind("pad_", 0) == 0; }

}  // namespace

std::string disassemble(const Insn& insn) {
    std::ostringstream out;
    if (insn.opcode > ALU || insn.memory > ACC8 || insn.alu_op > ALU_MUL) return "unknown";
    const char* const* tokens = kTokens[insn.module()];
    switch (insn.opcode) {
        case LOAD: out << "load." << kMemories[insn.memory]; break;
        case STORE: out << "store." << kMemories[insn.memory]; break;
        case GEMM: out << (insn.reset ? "gemm.reset" : "gemm"); break;
        case ALU: out << "alu." << kAluOps[insn.alu_op] << (insn.use_imm ? ".imm" : ""); break;
        default: out << "finish";
    }
    const bool flags[] = {insn.pop_prev, insn.pop_next, insn.push_prev, insn.push_next};
    for (int i = 0; i < 4; i++)
        if (flags[i]) out << ' ' << (*tokens[i] ? tokens[i] : "illegal");
    if (insn.opcode == LOAD || insn.opcode == STORE) {
        for (const FieldOf& field : kTransfer)
            if (insn.*field.member || !is_pad(field)) out << ' ' << field.name << '=' << insn.*field.member;
    } else if (insn.opcode == GEMM || insn.opcode == ALU) {
        for (const FieldOf& field : kCompute) {
            const std::string name = field.name;
            const bool weights = name.rfind("wgt", 0) == 0;
            if (weights && insn.opcode == ALU) continue;
            if (name == "imm" && (insn.opcode == GEMM || !insn.use_imm)) continue;
            out << ' ' << name << '=' << insn.*field.member;
        }
    }
    return out.str();
}

Insn assemble(const std::string& line) {
    std::istringstream in(line);
    std::string name, item;
    Insn insn;
    in >> name;
    const size_t dot = name.find('.');
    const std::string base = name.substr(0, dot);
    const std::string rest = dot == std::string::npos ? "" : name.substr(dot + 1);
    auto index = [&](const char* const* names, int count, const std::string& wanted) {
        for (int i = 0; i < count; i++)
            if (wanted == names[i]) return i;
        throw std::invalid_argument("'" + name + "' is no instruction");
    };
    if (base == "load" || base == "store") {
        insn.opcode = base == "load" ? LOAD : STORE;
        insn.memory = index(kMemories, 6, rest);
    } else if (base == "gemm" && (rest.empty() || rest == "reset")) {
        insn.opcode = GEMM;
        insn.reset = !rest.empty();
    } else if (base == "alu") {
        insn.opcode = ALU;
        const size_t second = rest.find('.');
        insn.alu_op = index(kAluOps, 5, rest.substr(0, second));
        insn.use_imm = second != std::string::npos;
        if (insn.use_imm && rest.substr(second) != ".imm")
            throw std::invalid_argument("'" + name + "' is no instruction");
    } else if (name == "finish") {
        insn.opcode = FINISH;
    } else {
        throw std::invalid_argument("'" + name + "' is no instruction");
    }
    bool* const flags[] = {&insn.pop_prev, &insn.pop_next, &insn.push_prev, &insn.push_next};
    const bool transfer = insn.opcode == LOAD || insn.opcode == STORE;
    while (in >> item) {
        bool known = false;
        for (int i = 0; i < 4; i++)
            if (item == kTokens[insn.module()][i]) *flags[i] = known = true;
        const size_t equals = item.find('=');
        if (!known && equals != std::string::npos && insn.opcode != FINISH) {
            const std::string key = item.substr(0, equals);
            auto take = [&](const FieldOf& field) {
                if (key != field.name) return;
                char* end = nullptr;
                insn.*field.member = std::strtoll(item.c_str() + equals + 1, &end, 0);
                known = *end == '\0' && end != item.c_str() + equals + 1;
            };
            if (transfer)
                for (const FieldOf& field : kTransfer) take(field);
            else
                for (const FieldOf& field : kCompute) take(field);
        }
        if (!known) throw std::invalid_argument("'" + item + "' is not understood in '" + line + "'");
    }
    return insn;
}

}  // namespace vta
