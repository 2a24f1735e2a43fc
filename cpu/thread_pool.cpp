#include "cpu/thread_pool.h"

#include <sched.h>
#include <tbb/global_control.h>
#include <tbb/info.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#include <tbb/task_scheduler_observer.h>

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "quant/error.h"

namespace moraine::cpu {
namespace {

/// Keeps oneTBB's threads on their CPUs while they are in an arena, and lets go of them when they leave, because other
/// arenas share them; who is still in the arena when it ends keeps its CPU until the next pinned arena. A CPU that the
/// process may not use changes nothing.
class Pinning final : public tbb::task_scheduler_observer {
 public:
  Pinning(tbb::task_arena& arena, std::vector<int> cpus) : task_scheduler_observer(arena), cpus_(std::move(cpus)) {
    ::sched_getaffinity(0, sizeof(process_cpus_), &process_cpus_);
    observe(true);
  }
  ~Pinning() override { observe(false); }

  void on_scheduler_entry(bool is_worker) override {
    const int worker = tbb::this_task_arena::current_thread_index();
    if (!is_worker || worker < 0 || worker >= std::ssize(cpus_)) return;
    const int cpu = cpus_[static_cast<size_t>(worker)];
    if (cpu < 0 || cpu >= CPU_SETSIZE) return;
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(static_cast<size_t>(cpu), &only);
    ::sched_setaffinity(0, sizeof(only), &only);
  }
  void on_scheduler_exit(bool is_worker) override {
    if (is_worker) ::sched_setaffinity(0, sizeof(process_cpus_), &process_cpus_);
  }

 private:
  std::vector<int> cpus_;
  cpu_set_t process_cpus_ = {};
};

}  // namespace

struct ThreadPool::Impl {
  Impl(int threads, std::vector<int> cpus) : arena(threads) {
    // oneTBB takes the smallest limit alive, so one is set only by a pool that needs more threads than there are cores.
    if (threads > tbb::info::default_concurrency()) {
      parallelism.emplace(tbb::global_control::max_allowed_parallelism, static_cast<size_t>(threads));
    }
    if (!cpus.empty()) pinning.emplace(arena, std::move(cpus));
  }
  std::optional<tbb::global_control> parallelism;
  tbb::task_arena arena;
  std::optional<Pinning> pinning;
};

ThreadPool::ThreadPool(int threads, std::vector<int> cpus)
    : threads_(threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()))) {
  MORAINE_CHECK(threads >= 0);
  MORAINE_CHECK(cpus.empty() || std::ssize(cpus) == threads_);
  impl_ = std::make_unique<Impl>(threads_, std::move(cpus));
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
