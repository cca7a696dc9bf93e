// SPDX-License-Identifier: Apache-2.0
#include "tsim.hpp"

#include <algorithm>
#include <limits>

#include "fsim.hpp"

namespace vta {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr int kFetch = 3;  // the fourth actor

// Bursts of a transfer, made one at a time.
struct Transfer {
    int64_t address = 0, left = 0;                      // in the current row, bytes
    int64_t row_address = 0, row_step = 0, row_bytes = 0, rows = 0;  // rows after the current one
    bool write = false;
    int priority = 0;

    // `longest` is a power of two.
    int64_t next_burst(int64_t longest) {
        if (left == 0) {
            row_address += row_step;
            rows--;
            address = row_address;
            left = row_bytes;
        }
        const int64_t size = std::min(left, longest - (address & (longest - 1)));
        address += size;
        left -= size;
        return size;
    }
    bool done() const { return left == 0 && rows == 0; }
};

struct Actor {
    enum State { issue, transferring, ending } state = issue;
    enum Reason { none, on_insn, on_token, on_space, on_bus } blocked = none;
    int64_t wake = kNever;
    int64_t request = kNever;  // since when it waits for the bus
    Transfer transfer;
    Insn insn;
    bool decoded = false;
    size_t head = 0, fetched = 0;  // of its list
    int64_t pads = 0, since = 0;
    Span span;
};

class Machine {
  public:
    Machine(const Program& program, const Hardware& hardware, const Timing& timing, bool trace)
        : program_(program), hardware_(hardware), timing_(timing), widths_(hardware), trace_(trace) {
        longest_ = int64_t(timing.bus_bytes) * timing.max_beats;
        fetch_longest_ = int64_t(timing.bus_bytes) * timing.fetch_beats;
        out_element_ = hardware.bytes(OUT);
        while (1 << bus_shift_ < timing.bus_bytes) bus_shift_++;
        while (1 << out_shift_ < out_element_) out_shift_++;
        if (trace) result_.spans.resize(program.insns.size());
    }

    Timed run() {
        int64_t begin = 0, start = 0;
        for (const int64_t end : program_.segments) {
            start = segment(begin, end, start);
            begin = end;
        }
        result_.cycles = start;
        return std::move(result_);
    }

  private:
    int64_t segment(int64_t begin, int64_t end, int64_t start) {
        for (auto& list : lists_) list.clear();
        for (int64_t i = begin; i < end; i++)
            lists_[check(program_.insns[size_t(i)], size_t(i))].push_back(uint32_t(i));
        for (int m = 0; m < 3; m++) {
            actors_[m] = Actor();
            actors_[m].wake = actors_[m].since = start;
        }
        Actor& fetch = actors_[kFetch] = Actor();
        fetch.transfer = {};
        next_ = drained_to_ = begin_ = begin;
        arrival_.resize(size_t(end - begin));
        end_ = end;
        fetch.wake = start;
        fetch.state = Actor::issue;
        int64_t now = start, finished = start;
        while (true) {
            int64_t wake = kNever;
            for (const Actor& actor : actors_) wake = std::min(wake, actor.wake);
            int64_t grant = kNever;
            int winner = -1;
            if (waiting_ > 0) choose(grant, winner);
            if (wake == kNever && grant == kNever) break;
            if (wake <= grant) {
                now = wake;
                for (int a = 0; a < 4; a++)
                    if (actors_[a].wake == now) a == kFetch ? step_fetch(now) : step(a, now);
            } else {
                now = grant;
                give_bus(winner, now);
            }
            finished = std::max(finished, now);
            if (now > timing_.cycle_limit)
                throw Failure(Stage::run, Code::timeout,
                              "not finished after " + std::to_string(timing_.cycle_limit) + " cycles");
        }
        const size_t at[3] = {actors_[0].head, actors_[1].head, actors_[2].head};
        for (int m = 0; m < 3; m++)
            if (at[m] < lists_[m].size() || actors_[m].state != Actor::issue)
                throw Failure(Stage::run, Code::deadlock, describe(program_, widths_, lists_, at, tokens_));
        return finish_;
    }

    // The request that gets the bus next, and when.
    void choose(int64_t& when, int& winner) {
        for (int c = 0; c < (timing_.shared_port ? 1 : 2); c++) {
            int64_t earliest = kNever;
            for (const Actor& actor : actors_)
                if (actor.request != kNever && port(actor) == c) earliest = std::min(earliest, actor.request);
            if (earliest == kNever) continue;
            const int64_t at = std::max(earliest, free_[c]);
            if (at >= when) continue;
            when = at;
            int best = 1 << 30;
            for (int a = 0; a < 4; a++)
                if (actors_[a].request <= at && port(actors_[a]) == c && actors_[a].transfer.priority < best) {
                    best = actors_[a].transfer.priority;
                    winner = a;
                }
        }
    }

    int port(const Actor& actor) const { return actor.transfer.write && !timing_.shared_port; }

    void give_bus(int a, int64_t now) {
        Actor& actor = actors_[a];
        int64_t& free = free_[port(actor)];
        const int64_t waited = now - actor.request;
        actor.span.bus_wait += waited;
        if (a != kFetch) result_.modules[a].wait_bus += waited;
        const bool queued = actor.request < free;  // data of others was still on its way
        waiting_--;
        actor.request = kNever;
        // Nobody else acts before this time, so until then the bursts follow one another.
        int64_t alone = waiting_ > 0 ? 0 : kNever;
        for (const Actor& other : actors_) alone = std::min(alone, other.wake);
        while (true) {
            free = now + hold(actor.transfer, !queued);
            if (a != kFetch && timing_.outstanding > 1 && !actor.transfer.write && !actor.transfer.done()) {
                ask(actor, now);
                return;
            }
            if (actor.transfer.done() || free >= alone || queued) break;
            now = free;
        }
        actor.wake = free;
    }

    // Cycles for which one burst has the bus.
    int64_t hold(Transfer& transfer, bool idle) {
        const int64_t size = transfer.next_burst(transfer.priority == 0 ? fetch_longest_ : longest_);
        const int64_t beats = (size + timing_.bus_bytes - 1) >> bus_shift_;
        int64_t cycles = timing_.beat_milli == 1000 ? beats : (beats * timing_.beat_milli + 999) / 1000;
        if (transfer.write)
            cycles += timing_.wr_ov + timing_.out_read * ((size + out_element_ - 1) >> out_shift_);
        else
            cycles += timing_.rd_ov + (idle ? timing_.lat : 0);
        result_.bus_busy += cycles;
        result_.bursts++;
        return cycles;
    }

    void ask(Actor& actor, int64_t now) {
        actor.request = now;
        waiting_++;
    }

    // The fetch unit reads a burst of instructions, then puts one per cycle into the queues.
    void step_fetch(int64_t now) {
        Actor& fetch = actors_[kFetch];
        if (fetch.state == Actor::issue) {
            if (next_ == end_) {
                fetch.wake = kNever;
                return;
            }
            const int64_t count = std::min(end_ - next_, std::max<int64_t>(1, fetch_longest_ / 16));
            fetch.transfer = {0, 16 * count, 0, 0, 0, 0, false, 0};
            next_ += count;
            fetch.state = Actor::transferring;
            fetch.wake = kNever;
            ask(fetch, now);
            return;
        }
        if (fetch.state == Actor::transferring && fetch.transfer.left > 0) {  // narrower than one instruction
            fetch.wake = kNever;
            ask(fetch, now);
            return;
        }
        if (fetch.state == Actor::transferring) {
            if (all_fit()) {
                drain(now);
                return;
            }
            fetch.state = Actor::ending;
            fetch.wake = now + 1;
            return;
        }
        const int m = check(program_.insns[size_t(drained_to_)], size_t(drained_to_));
        Actor& module = actors_[m];
        if (int64_t(module.fetched - module.head) >= timing_.queue_depth) {
            fetch.blocked = Actor::on_space;
            fetch.wake = kNever;
            return;
        }
        fetch.blocked = Actor::none;
        module.fetched++;
        arrival_[size_t(drained_to_ - begin_)] = now;
        if (module.blocked == Actor::on_insn) module.wake = std::min(module.wake, now);
        if (++drained_to_ < next_) {
            fetch.wake = now + 1;
        } else {
            fetch.state = Actor::issue;
            fetch.wake = now;
        }
    }

    // Whether every queue has room for its part of the burst.
    bool all_fit() const {
        size_t room[3];
        for (int m = 0; m < 3; m++) {
            const size_t queued = actors_[m].fetched - actors_[m].head;
            room[m] = size_t(timing_.queue_depth) - std::min(size_t(timing_.queue_depth), queued);
        }
        for (int64_t i = drained_to_; i < next_; i++)
            if (room[check(program_.insns[size_t(i)], size_t(i))]-- == 0) return false;
        return true;
    }

    // The burst at once: what `step_fetch` does one by one where a queue may be full.
    void drain(int64_t now) {
        Actor& fetch = actors_[kFetch];
        for (; drained_to_ < next_; drained_to_++) {
            Actor& module = actors_[check(program_.insns[size_t(drained_to_)], size_t(drained_to_))];
            arrival_[size_t(drained_to_ - begin_)] = ++now;
            module.fetched++;
            if (module.blocked == Actor::on_insn) module.wake = std::min(module.wake, now);
        }
        fetch.state = Actor::issue;
        fetch.wake = now;
    }

    void step(int m, int64_t now) {
        Actor& actor = actors_[m];
        switch (actor.state) {
            case Actor::issue: start(m, now); break;
            case Actor::transferring:
                if (!actor.transfer.done()) {
                    actor.wake = kNever;
                    ask(actor, now);
                } else if (timing_.pad_overlap) {
                    const int64_t padded = actor.span.start + actor.pads * timing_.pad_cycles;
                    actor.state = Actor::ending;
                    actor.wake = std::max(now, padded);
                } else {
                    actor.state = Actor::ending;
                    actor.wake = now + actor.pads * timing_.pad_cycles;
                }
                break;
            case Actor::ending: end(m, now); break;
        }
    }

    void start(int m, int64_t now) {
        Actor& actor = actors_[m];
        if (actor.head >= actor.fetched) {
            actor.blocked = Actor::on_insn;
            actor.wake = kNever;
            return;
        }
        const int64_t arrival = arrival_[size_t(lists_[m][actor.head] - begin_)];
        if (arrival > now) {
            actor.blocked = Actor::on_insn;
            actor.wake = arrival;
            return;
        }
        if (!actor.decoded) {
            decode(program_.insns[lists_[m][actor.head]], widths_, actor.insn);
            actor.decoded = true;
            actor.span = Span();
            actor.span.issue = now;
            result_.modules[m].wait_insn += now - actor.since;
            actor.since = now;
        }
        const Insn& insn = actor.insn;
        const int prev = kQueue[m][0], next = kQueue[m][1];
        if ((insn.pop_prev && tokens_[prev] == 0) || (insn.pop_next && tokens_[next] == 0)) {
            actor.blocked = Actor::on_token;
            actor.wake = kNever;
            return;
        }
        actor.blocked = Actor::none;
        if (insn.pop_prev) tokens_[prev]--;
        if (insn.pop_next) tokens_[next]--;
        for (int other = 0; other < 3; other++)  // a sender may wait for room
            if (actors_[other].blocked == Actor::on_space) actors_[other].wake = now;
        result_.modules[m].wait_token += now - actor.since;
        actor.since = now;
        actor.span.start = now;
        actor.head++;
        if (actors_[kFetch].blocked == Actor::on_space) actors_[kFetch].wake = now;
        actor.state = Actor::ending;
        if (insn.noop() || insn.opcode == FINISH) {
            actor.wake = now + 1;
        } else if (insn.opcode == GEMM || insn.opcode == ALU) {
            const int64_t steps = (insn.uop_end - insn.uop_bgn) * insn.iter_out * insn.iter_in;
            actor.wake = now + (insn.opcode == GEMM ? timing_.gemm_ov + steps * timing_.gemm_ii
                                                    : timing_.alu_ov + steps * (insn.use_imm ? timing_.alu_imm
                                                                                             : timing_.alu_tt));
        } else {
            begin_transfer(m, now);
        }
    }

    void begin_transfer(int m, int64_t now) {
        Actor& actor = actors_[m];
        const Insn& insn = actor.insn;
        static constexpr int kPriority[] = {1, 3, 2, 4, 5, 4};  // by memory; the fetch unit has 0
        const int64_t element = hardware_.bytes(insn.memory);
        Transfer& t = actor.transfer;
        t.write = insn.opcode == STORE;
        t.priority = kPriority[insn.memory];
        t.address = t.row_address = insn.dram_base * element;
        t.row_step = insn.x_stride * element;
        t.left = t.row_bytes = insn.x_size * element;
        t.rows = std::max<int64_t>(insn.y_size, 1) - 1;
        actor.pads = (insn.x_pad_0 + insn.x_size + insn.x_pad_1) * (insn.y_pad_0 + insn.y_size + insn.y_pad_1) -
                     insn.x_size * insn.y_size;
        actor.state = Actor::transferring;
        actor.wake = kNever;
        ask(actor, now);
    }

    void end(int m, int64_t now) {
        Actor& actor = actors_[m];
        const Insn& insn = actor.insn;
        const bool push[] = {insn.push_prev, insn.push_next};
        for (int side = 0; side < 2; side++) {
            const int queue = kQueue[m][2 + side];
            if (push[side] && tokens_[queue] >= timing_.token_max && !timing_.token_lost) {
                actor.blocked = Actor::on_space;
                actor.wake = kNever;
                return;
            }
        }
        actor.blocked = Actor::none;
        for (int side = 0; side < 2; side++) {
            const int queue = kQueue[m][2 + side];
            if (!push[side]) continue;
            if (tokens_[queue] >= timing_.token_max) {
                result_.lost_tokens++;
                continue;
            }
            tokens_[queue]++;
            result_.most_tokens[queue] = std::max(result_.most_tokens[queue], tokens_[queue]);
            for (int other = 0; other < 3; other++)
                if (actors_[other].blocked == Actor::on_token) actors_[other].wake = now;
        }
        result_.modules[m].busy += now - actor.since;
        actor.since = now;
        actor.span.end = now;
        if (insn.opcode == FINISH) finish_ = now;
        if (trace_) result_.spans[lists_[m][actor.head - 1]] = actor.span;
        actor.state = Actor::issue;
        actor.decoded = false;
        actor.wake = now + (insn.noop() ? 0 : timing_.insn_ov);
        actor.since = actor.wake;
    }

    const Program& program_;
    const Hardware& hardware_;
    const Timing& timing_;
    Widths widths_;
    bool trace_;
    int64_t longest_, fetch_longest_, out_element_;
    int bus_shift_ = 0, out_shift_ = 0;
    std::vector<uint32_t> lists_[3];
    Actor actors_[4];
    int64_t free_[2] = {};  // when the bus is free again: reads, and writes where they have a port of their own
    int waiting_ = 0;       // requests for the bus
    int64_t tokens_[5] = {};
    std::vector<int64_t> arrival_;  // of each instruction in its queue
    int64_t begin_ = 0, next_ = 0, drained_to_ = 0, end_ = 0, finish_ = 0;
    Timed result_;
};

}  // namespace

Timed simulate(const Program& program, const Hardware& hardware, const Timing& timing, bool trace) {
    return Machine(program, hardware, timing, trace).run();
}

}  // namespace vta
