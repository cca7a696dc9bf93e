// SPDX-License-Identifier: Apache-2.0
#include "evaluate.hpp"

#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

namespace vta {
namespace {

void fail(Verdict& verdict, const Failure& failure) {
    verdict.stage = failure.stage;
    verdict.code = failure.code;
    verdict.message = failure.what();
}

void compare(const int8_t* out, const int8_t* expected, int64_t size) {
    if (std::memcmp(out, expected, size_t(size)) == 0) return;
    int64_t wrong = 0, first = -1;
    for (int64_t i = 0; i < size; i++)
        if (out[i] != expected[i]) {
            if (first < 0) first = i;
            wrong++;
        }
    throw Failure(Stage::check, Code::wrong,
                  std::to_string(wrong) + " of " + std::to_string(size) + " bytes are wrong, the first at " +
                      std::to_string(first) + ": " + std::to_string(out[first]) + " instead of " +
                      std::to_string(expected[first]));
}

class Worker {
  public:
    explicit Worker(const Request& request) : request_(request) {}

    void run(int64_t index, Verdict& verdict, double* counters) {
        const auto start = std::chrono::steady_clock::now();
        try {
            evaluate(index, verdict, counters);
        } catch (const Failure& failure) {
            fail(verdict, failure);
        }
        verdict.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }

  private:
    void evaluate(int64_t index, Verdict& verdict, double* counters) {
        const Request& r = request_;
        const Plan plan = lower(r.layer, r.hardware, r.configs[index]);
        int64_t misses = 0;
        const Program program = emit(r.layer, r.hardware, plan, &misses);
        if (r.check[index]) {
            if (!fsim_) {
                fsim_ = std::make_unique<Fsim>(r.hardware);
                lanes_ = int64_t(r.hardware.batch) * r.hardware.block;
                out_.resize(size_t(r.tensors->out_size * lanes_));
            }
            // No byte is right unless it is written.
            for (size_t i = 0; i < out_.size(); i++) out_[i] = int8_t(~r.expected[i]);
            fsim_->run(program, *r.tensors, out_.data(), r.seeds[index]);
            compare(out_.data(), r.expected, int64_t(out_.size()));
        }
        const Timed timed = simulate(program, r.hardware, r.timing);
        verdict.cycles = timed.cycles;
        count(program, r.hardware, r.timing, r.layer, plan, misses, timed, counters);
    }

    const Request& request_;
    std::unique_ptr<Fsim> fsim_;
    std::vector<int8_t> out_;
    int64_t lanes_ = 0;
};

}  // namespace

void evaluate(const Request& request, Verdict* verdicts, double* counters) {
    const size_t width = counter_names().size();
    std::atomic<int64_t> next{0};
    std::exception_ptr problem;  // such as no memory; not a configuration's fault
    std::mutex guard;
    auto work = [&] {
        try {
            Worker worker(request);
            for (int64_t i; (i = next++) < request.count;) worker.run(i, verdicts[i], counters + size_t(i) * width);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            problem = std::current_exception();
        }
    };
    std::vector<std::thread> threads;
    for (int job = 1; job < request.jobs && job < request.count; job++) threads.emplace_back(work);
    work();
    for (std::thread& thread : threads) thread.join();
    if (problem) std::rethrow_exception(problem);
}

void compile(const Request& request, bool make_code, Verdict* verdicts) {
    for (int64_t i = 0; i < request.count; i++) {
        try {
            const Plan plan = lower(request.layer, request.hardware, request.configs[i]);
            if (make_code) emit(request.layer, request.hardware, plan);
        } catch (const Failure& failure) {
            fail(verdicts[i], failure);
        }
    }
}

}  // namespace vta
