#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace moraine::cpu {

/// A fixed number of threads for parallel loops, kept between calls; the caller is one of them.
class ThreadPool {
 public:
  /// `threads` ≥ 1; 0: as many as cores this process may use. `cpus` [threads], or empty: worker w runs on cpus[w]
  /// alone, if the system lets it. Worker 0 is the caller and goes where it likes. Throws quant::Error(kNotEnough) if
  /// the system gives no thread.
  explicit ThreadPool(int threads, std::vector<int> cpus = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Calls fn(task, worker) for task = 0 … n_tasks − 1 (fewer than 2³²) and waits for all. Every worker has an equal
  /// range of neighbouring tasks, worker 0 the first, and begins them in order; who is done takes over from the others.
  /// No two calls with the same worker (0 … threads() − 1) run at a time. What fn throws first ends the loop and is
  /// thrown here. One caller at a time; not nested.
  void parallel_for(int64_t n_tasks, const std::function<void(int64_t task, int worker)>& fn);

 private:
  struct Impl;
  int threads_;
  std::unique_ptr<Impl> impl_;  // null: one thread
};

}  // namespace moraine::cpu
