#include "cpu/thread_pool.h"

#include <tbb/global_control.h>
#include <tbb/info.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <optional>
#include <thread>

#include "quant/error.h"

namespace moraine::cpu {

struct ThreadPool::Impl {
  explicit Impl(int threads) : arena(threads) {
    // oneTBB takes the smallest limit alive, so one is set only by a pool that needs more threads than there are cores.
    if (threads > tbb::info::default_concurrency()) {
      parallelism.emplace(tbb::global_control::max_allowed_parallelism, static_cast<size_t>(threads));
    }
  }
  std::optional<tbb::global_control> parallelism;
  tbb::task_arena arena;
};

ThreadPool::ThreadPool(int threads)
    : threads_(threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()))) {
  MORAINE_CHECK(threads >= 0);
  impl_ = std::make_unique<Impl>(threads_);
}

ThreadPool::~ThreadPool() = default;

void ThreadPool::parallel_for(int64_t n_tasks, const std::function<void(int64_t task, int worker)>& fn) {
  if (threads_ == 1 || n_tasks <= 1) {
    for (int64_t task = 0; task < n_tasks; ++task) fn(task, 0);
    return;
  }
  impl_->arena.execute([&] {
    tbb::parallel_for(
        tbb::blocked_range<int64_t>(0, n_tasks, 1),
        [&](const tbb::blocked_range<int64_t>& range) {
          const int worker = tbb::this_task_arena::current_thread_index();
          for (int64_t task = range.begin(); task < range.end(); ++task) fn(task, worker);
        },
        tbb::simple_partitioner());
  });
}

}  // namespace moraine::cpu
