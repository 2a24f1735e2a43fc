#pragma once

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "offload/block_reader.h"
#include "quant/error.h"

namespace moraine::testing {

/// A drive that fails on purpose.
struct Fault {
  enum class Kind {
    kIoError,    ///< the read fails with EIO
    kBitFlip,    ///< one bit of the destination is wrong and nothing is said
    kShortRead,  ///< the second half of the destination never arrives and nothing is said
    kDelay,      ///< the completion is held back until FaultyReader::let_go()
    kBroken,     ///< submit() throws: the reader as a whole is gone
  };
  Kind kind = Kind::kIoError;
  int file = 0;        ///< requests that begin in
  uint64_t begin = 0;  ///< [begin, end) of this file
  uint64_t end = ~uint64_t{0};
  int times = -1;  ///< that many requests; −1: all
};

/// Wraps any reader and applies faults to the requests they match.
class FaultyReader : public offload::BlockReader {
 public:
  FaultyReader(std::unique_ptr<offload::BlockReader> inner, std::vector<Fault> faults)
      : inner_(std::move(inner)), faults_(std::move(faults)) {}

  void submit(std::span<const offload::ReadRequest> requests) override {
    std::vector<offload::ReadRequest> passed_on;
    for (const offload::ReadRequest& request : requests) {
      const Fault* fault = match(request);
      if (fault != nullptr && fault->kind == Fault::Kind::kBroken) {
        throw quant::Error(quant::ErrorKind::kIo, {.what = "the reader broke"});
      }
      passed_on.push_back(request);
      passed_on.back().tag = next_tag_;
      under_way_[next_tag_++] = {request, fault};
    }
    inner_->submit(passed_on);
  }

  void wait(std::vector<offload::ReadCompletion>& completions) override {
    std::vector<offload::ReadCompletion> inner_completions;
    inner_->wait(inner_completions);
    const std::lock_guard lock(mutex_);
    for (offload::ReadCompletion& completion : inner_completions) {
      const auto [request, fault] = under_way_.at(completion.tag);
      under_way_.erase(completion.tag);
      completion.tag = request.tag;
      const bool held = fault != nullptr && fault->kind == Fault::Kind::kDelay && !let_go_;
      if (fault != nullptr && !held) apply(*fault, request, completion);
      (held ? held_ : completions).push_back(std::move(completion));
    }
    if (!let_go_) return;
    for (offload::ReadCompletion& completion : held_) completions.push_back(std::move(completion));
    held_.clear();
  }

  /// Delayed completions, and all later ones, go on. From any thread.
  void let_go() {
    {
      const std::lock_guard lock(mutex_);
      let_go_ = true;
    }
    wake();
  }

  void wake() override { inner_->wake(); }
  uint64_t alignment_bytes() const override { return inner_->alignment_bytes(); }
  const char* name() const override { return inner_->name(); }

 private:
  const Fault* match(const offload::ReadRequest& request) {
    for (Fault& fault : faults_) {
      const bool in_range = request.file == fault.file && request.offset >= fault.begin && request.offset < fault.end;
      if (!in_range || fault.times == 0) continue;
      if (fault.times > 0) --fault.times;
      return &fault;
    }
    return nullptr;
  }

  static void apply(const Fault& fault, const offload::ReadRequest& request, offload::ReadCompletion& completion) {
    const std::span<std::byte> bytes = request.destination;
    if (fault.kind == Fault::Kind::kIoError) {
      completion.failure = offload::ReadFailure{.kind = quant::ErrorKind::kIo,
                                                .detail = {.what = std::strerror(EIO), .offset = request.offset}};
    } else if (fault.kind == Fault::Kind::kBitFlip) {
      bytes[bytes.size() / 2] ^= std::byte{0x10};
    } else if (fault.kind == Fault::Kind::kShortRead) {
      std::memset(bytes.data() + bytes.size() / 2, 0, bytes.size() - bytes.size() / 2);
    }
  }

  std::unique_ptr<offload::BlockReader> inner_;
  std::vector<Fault> faults_;
  uint64_t next_tag_ = 0;
  std::unordered_map<uint64_t, std::pair<offload::ReadRequest, const Fault*>> under_way_;
  std::vector<offload::ReadCompletion> held_;
  std::mutex mutex_;  // guards let_go_
  bool let_go_ = false;
};

/// A drive that answers every request late, however many it has: its completion comes `delay` after its submission.
class DelayingReader : public offload::BlockReader {
 public:
  DelayingReader(std::unique_ptr<offload::BlockReader> inner, std::chrono::milliseconds delay)
      : inner_(std::move(inner)), delay_(delay) {}

  void submit(std::span<const offload::ReadRequest> requests) override {
    for (size_t i = 0; i < requests.size(); ++i) due_.push_back(Clock::now() + delay_);
    inner_->submit(requests);
  }

  void wait(std::vector<offload::ReadCompletion>& completions) override {
    while (true) {
      if (held_.size() < due_.size()) inner_->wait(held_);
      std::unique_lock lock(mutex_);
      // Which completion takes which due time is all the same: they leave in the order of submission.
      if (held_.size() == due_.size()) {
        if (due_.empty()) {
          changed_.wait(lock, [this] { return woken_; });
        } else {
          changed_.wait_until(lock, due_.front(), [this] { return woken_; });
        }
      }
      const bool was_woken = std::exchange(woken_, false);
      size_t ready = 0;
      while (ready < held_.size() && due_[ready] <= Clock::now()) ++ready;
      for (size_t i = 0; i < ready; ++i) completions.push_back(std::move(held_[i]));
      held_.erase(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(ready));
      due_.erase(due_.begin(), due_.begin() + static_cast<ptrdiff_t>(ready));
      if (ready > 0 || was_woken) return;
    }
  }

  void wake() override {
    {
      const std::lock_guard lock(mutex_);
      woken_ = true;
    }
    changed_.notify_one();
    inner_->wake();
  }
  uint64_t alignment_bytes() const override { return inner_->alignment_bytes(); }
  const char* name() const override { return inner_->name(); }

 private:
  using Clock = std::chrono::steady_clock;
  std::unique_ptr<offload::BlockReader> inner_;
  const std::chrono::milliseconds delay_;
  std::deque<Clock::time_point> due_;          // of all requests under way, in the order of submission
  std::vector<offload::ReadCompletion> held_;  // read by `inner_`, not delivered yet
  std::mutex mutex_;                           // guards woken_
  std::condition_variable changed_;
  bool woken_ = false;
};

}  // namespace moraine::testing
