#include "cpu/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iterator>
#include <stdexcept>
#include <thread>
#include <vector>

namespace moraine::cpu {
namespace {

TEST(ThreadPool, RunsEveryTaskOnceWithAWorkerInRange) {
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t n_tasks : {0, 1, 2, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(n_tasks));
      std::atomic<bool> in_range = true;
      pool.parallel_for(n_tasks, [&](int64_t task, int worker) {
        ++runs[static_cast<size_t>(task)];
        if (worker < 0 || worker >= threads) in_range = false;
      });
      for (const auto& count : runs) EXPECT_EQ(count, 1);
      EXPECT_TRUE(in_range);
    }
  }
}

TEST(ThreadPool, AWorkerRunsOneTaskAtATime) {
  ThreadPool pool(2);
  std::vector<std::atomic<int>> busy(2);
  std::atomic<bool> overlapped = false;
  pool.parallel_for(2000, [&](int64_t, int worker) {
    if (++busy[static_cast<size_t>(worker)] != 1) overlapped = true;
    std::this_thread::yield();
    --busy[static_cast<size_t>(worker)];
  });
  EXPECT_FALSE(overlapped);
}

/// The CPUs that this thread may use.
std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(::sched_getaffinity(0, sizeof(set), &set), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<size_t>(cpu), &set)) cpus.push_back(cpu);
  }
  return cpus;
}

/// Runs a loop in which both of two workers take part and returns where worker 1 was allowed to run.
std::vector<int> cpus_of_worker_1(ThreadPool& pool) {
  std::vector<int> cpus;
  std::atomic<int> started = 0;
  pool.parallel_for(2, [&](int64_t, int worker) {
    ++started;
    while (started < 2) std::this_thread::yield();
    if (worker == 1) cpus = allowed_cpus();
  });
  return cpus;
}

TEST(ThreadPool, WorkersStayOnTheirCpusAndTheCallerIsFree) {
  const std::vector<int> all = allowed_cpus();
  for (const int cpu : {all.front(), all.back()}) {
    ThreadPool pool(2, {all.front(), cpu});
    EXPECT_EQ(cpus_of_worker_1(pool), std::vector<int>{cpu});
    EXPECT_EQ(allowed_cpus(), all);
  }
}

TEST(ThreadPool, ACpuThatTheProcessMayNotUseChangesNothing) {
  for (const int cpu : {CPU_SETSIZE - 1, CPU_SETSIZE + 5, -1}) {
    ThreadPool pool(2, {0, cpu});
    const std::vector<int> cpus = cpus_of_worker_1(pool);
    EXPECT_EQ(std::ranges::find(cpus, cpu), cpus.end()) << cpu;
    EXPECT_FALSE(cpus.empty());
  }
}

TEST(ThreadPool, ZeroMeansEveryCore) {
  EXPECT_EQ(ThreadPool(0).threads(), std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
}

TEST(ThreadPool, ThrowsWhatATaskThrowsAndGoesOn) {
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    EXPECT_THROW(pool.parallel_for(100,
                                   [](int64_t task, int) {
                                     if (task == 37) throw std::runtime_error("37");
                                   }),
                 std::runtime_error);
    std::atomic<int> runs = 0;
    pool.parallel_for(10, [&](int64_t, int) { ++runs; });
    EXPECT_EQ(runs, 10);
  }
}

TEST(ThreadPool, ThrowsOneOfManyAndWaitsForWhatHasBegun) {
  for (int round = 0; round < 200; ++round) {
    ThreadPool pool(3);
    std::atomic<int> begun = 0, ended = 0;
    const auto fail = [&](int64_t task, int) {
      ++begun;
      std::this_thread::yield();
      ++ended;
      throw std::runtime_error(std::to_string(task));
    };
    EXPECT_THROW(pool.parallel_for(50, fail), std::runtime_error);
    EXPECT_EQ(begun, ended);
    EXPECT_LE(begun, 3) << "nothing begins after a failure but what others took in the meantime";
  }
}

TEST(ThreadPool, EveryWorkerBeginsWithItsOwnRangeInOrder) {
  constexpr int64_t kTasks = 9;
  for (const int threads : {2, 3, 4}) {
    ThreadPool pool(threads);
    std::vector<std::vector<int64_t>> taken(static_cast<size_t>(threads));
    std::atomic<int> started = 0;
    pool.parallel_for(kTasks, [&](int64_t task, int worker) {
      std::vector<int64_t>& own = taken[static_cast<size_t>(worker)];
      if (own.empty()) ++started;
      own.push_back(task);
      while (started < threads) std::this_thread::yield();
    });
    for (int worker = 0; worker < threads; ++worker) {
      const std::vector<int64_t>& own = taken[static_cast<size_t>(worker)];
      const int64_t begin = kTasks * worker / threads, end = kTasks * (worker + 1) / threads;
      std::vector<int64_t> of_its_range;
      std::ranges::copy_if(own, std::back_inserter(of_its_range),
                           [&](int64_t task) { return task >= begin && task < end; });
      EXPECT_TRUE(std::ranges::is_sorted(of_its_range));
      EXPECT_EQ(own.at(0), begin) << worker << " of " << threads;
    }
  }
}

/// Loops whose number of tasks changes, one after the other and after pauses in which the workers fall asleep, more
/// threads than this machine has cores among them: a worker that comes late to a loop must not touch the next one.
TEST(ThreadPool, LoopsDoNotMixHoweverTheyFollow) {
  for (const int threads : {2, 8}) {
    ThreadPool pool(threads);
    for (int loop = 0; loop < 20000; ++loop) {
      const int64_t n_tasks = 2 + loop % 7;
      std::atomic<int64_t> sum = 0;
      pool.parallel_for(n_tasks, [&](int64_t task, int) { sum += loop + task; });
      ASSERT_EQ(sum, n_tasks * loop + n_tasks * (n_tasks - 1) / 2);
      if (loop % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

TEST(ThreadPool, EndsWhileItsThreadsSpinSleepOrStart) {
  for (int round = 0; round < 300; ++round) {
    ThreadPool pool(4);
    for (int loop = 0; loop < round % 3; ++loop) pool.parallel_for(4, [](int64_t, int) {});
    if (round % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace
}  // namespace moraine::cpu
