#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <future>
#include <utility>

namespace moraine::tools {

/// Results that are made side by side, one thread each, and taken in the order in which they were begun. Futures of
/// std::async wait for their thread when destroyed, so nothing outlives an exception.
template <class Result>
class InOrder {
 public:
  /// `begin` starts the next result with std::async; an invalid future says that all are begun. At most `most` (at
  /// least 1) are under way or wait to be taken.
  InOrder(int most, std::function<std::future<Result>()> begin)
      : most_(static_cast<size_t>(std::max(1, most))), begin_(std::move(begin)) {}

  /// There is a next one. Throws what making it threw.
  Result next() {
    while (coming_.size() < most_) {
      std::future<Result> begun = begin_();
      if (!begun.valid()) break;
      coming_.push_back(std::move(begun));
    }
    Result result = coming_.front().get();
    coming_.pop_front();
    return result;
  }

 private:
  size_t most_;
  std::function<std::future<Result>()> begin_;
  std::deque<std::future<Result>> coming_;
};

}  // namespace moraine::tools
