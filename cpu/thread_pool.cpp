#include "cpu/thread_pool.h"

#include <fmt/format.h>
#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <limits>
#include <system_error>
#include <thread>
#include <utility>

#include "quant/error.h"

namespace moraine::cpu {
namespace {

/// How long a thread spins before it sleeps. The pauses between a token's loops are shorter; waking a thread takes some
/// 10 µs of the caller's time and more until it runs.
constexpr std::chrono::microseconds kSpin{60};
/// Two locations that threads write at a time lie this far apart: a line and the one fetched with it.
constexpr size_t kApartBytes = 128;

/// Waits for ready(), at most kSpin, with the CPU to itself. Returns whether it came.
template <class Ready>
bool spin_until(const Ready& ready) {
  constexpr int kPausesPerLook = 16;  // a pause takes up to 140 cycles, a look at the clock 50
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (ready()) return true;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

/// Keeps this thread on `cpu` for good. A CPU that the process may not use changes nothing.
void pin_to(int cpu) {
  if (cpu < 0 || cpu >= CPU_SETSIZE) return;
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(static_cast<size_t>(cpu), &only);
  ::sched_setaffinity(0, sizeof(only), &only);
}

/// CPUs that this thread may use.
int allowed_cpu_count() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return CPU_COUNT(&set);
}

}  // namespace

/// One loop at a time, numbered by its generation. Every worker has a range of tasks of its own, and takes from the
/// others' when that is empty. Tasks are claimed by one compare-and-swap on the range's word of generation and tasks
/// left, so a thread that comes late to a loop that has ended claims nothing, whatever loop runs by then. All else that
/// belongs to a loop is read after a claim and before its task counts as completed: the loop can't end there.
struct ThreadPool::Impl {
  Impl(int threads, bool may_spin) : spins(may_spin), ranges(static_cast<size_t>(threads)) {}
  ~Impl();

  void start(const std::vector<int>& cpus);
  void run(uint32_t n, const std::function<void(int64_t, int)>& loop);

  struct alignas(kApartBytes) Range {
    std::atomic<uint64_t> unclaimed = 0;  // generation · 2³² + tasks that nobody has claimed
    uint32_t end = 0;                     // the range's last task + 1; written by the caller between loops
  };

  void serve(int worker);
  void work(uint32_t in_generation, int worker);
  uint32_t work_on(Range& range, uint32_t in_generation, int worker);
  void fail(std::exception_ptr exception);
  void complete(uint32_t count);

  const bool spins;  // fewer threads than CPUs: who waits spins first. Else that would keep another from its work.
  std::vector<Range> ranges;  // [threads]
  std::vector<std::thread> workers;
  // Written by the caller between loops.
  const std::function<void(int64_t, int)>* fn = nullptr;
  uint32_t n_tasks = 0;
  std::exception_ptr error;  // written by the one that sets `failed`
  std::atomic<bool> failed = false;
  std::atomic<bool> stopping = false;
  alignas(kApartBytes) std::atomic<uint32_t> completed = 0;  // tasks of this loop
  alignas(kApartBytes) std::atomic<uint32_t> generation = 0;
};

namespace {

constexpr uint64_t word(uint32_t generation, uint32_t left) {
  return uint64_t{generation} << 32 | left;
}

/// Takes a task of that loop: `left` tasks were unclaimed with it. False if there is none or the loop has ended.
bool claim(std::atomic<uint64_t>& unclaimed, uint32_t generation, uint32_t& left) {
  uint64_t seen = unclaimed.load(std::memory_order_relaxed);
  do {
    left = static_cast<uint32_t>(seen);
    if (left == 0 || seen >> 32 != generation) return false;
  } while (!unclaimed.compare_exchange_weak(seen, seen - 1, std::memory_order_acquire, std::memory_order_relaxed));
  return true;
}

}  // namespace

ThreadPool::Impl::~Impl() {
  stopping.store(true);
  generation.fetch_add(1);
  generation.notify_all();
  for (std::thread& worker : workers) worker.join();
}

void ThreadPool::Impl::start(const std::vector<int>& cpus) {
  const int threads = static_cast<int>(ranges.size());
  workers.reserve(ranges.size() - 1);
  try {
    for (int worker = 1; worker < threads; ++worker) {
      const int cpu = cpus.empty() ? -1 : cpus[static_cast<size_t>(worker)];
      workers.emplace_back([this, worker, cpu] {
        pin_to(cpu);
        serve(worker);
      });
    }
  } catch (const std::system_error& refused) {
    throw quant::Error(quant::ErrorKind::kNotEnough, {.what = fmt::format("could not start {} threads", threads),
                                                      .got = refused.what(),
                                                      .action = "choose fewer --threads"});
  }
}

/// A worker's life: joins every loop that it sees begin.
void ThreadPool::Impl::serve(int worker) {
  uint32_t seen = 0;
  const auto has_next = [&] { return generation.load(std::memory_order_acquire) != seen; };
  while (true) {
    if (!spins || !spin_until(has_next)) generation.wait(seen);
    seen = generation.load(std::memory_order_acquire);
    if (stopping.load()) return;
    work(seen, worker);
  }
}

/// The worker's own range, then the others', the nearest first: they are the likeliest to share its caches and memory.
void ThreadPool::Impl::work(uint32_t in_generation, int worker) {
  const int threads = static_cast<int>(ranges.size());
  uint32_t done = 0;
  for (int distance = 0; distance < threads; ++distance) {
    for (const int victim : {worker - distance, worker + distance}) {
      if (victim < 0 || victim >= threads) continue;
      done += work_on(ranges[static_cast<size_t>(victim)], in_generation, worker);
    }
  }
  if (done > 0) complete(done);
}

/// Runs tasks of the range until none is left; returns their number.
uint32_t ThreadPool::Impl::work_on(Range& range, uint32_t in_generation, int worker) {
  uint32_t left = 0, done = 0;
  for (; claim(range.unclaimed, in_generation, left); ++done) {
    try {
      (*fn)(range.end - left, worker);
    } catch (...) {
      fail(std::current_exception());
    }
  }
  return done;
}

/// Keeps the first exception; the tasks that nobody has begun count as completed.
void ThreadPool::Impl::fail(std::exception_ptr exception) {
  if (!failed.exchange(true)) error = std::move(exception);
  const uint64_t none_left = word(generation.load(), 0);
  uint32_t left = 0;
  for (Range& range : ranges) left += static_cast<uint32_t>(range.unclaimed.exchange(none_left));
  if (left > 0) complete(left);
}

void ThreadPool::Impl::complete(uint32_t count) {
  const uint32_t all = n_tasks;  // the loop may end with the addition
  if (completed.fetch_add(count) + count == all) completed.notify_one();
}

void ThreadPool::Impl::run(uint32_t n, const std::function<void(int64_t, int)>& loop) {
  fn = &loop;
  n_tasks = n;
  completed.store(0, std::memory_order_relaxed);
  const uint32_t mine = generation.load(std::memory_order_relaxed) + 1;
  uint32_t begin = 0;
  for (uint64_t i = 0; i < ranges.size(); ++i) {
    ranges[i].end = static_cast<uint32_t>(n * (i + 1) / ranges.size());
    ranges[i].unclaimed.store(word(mine, ranges[i].end - begin), std::memory_order_release);
    begin = ranges[i].end;
  }
  generation.store(mine);
  generation.notify_all();
  work(mine, 0);
  const auto all_done = [&] { return completed.load(std::memory_order_acquire) == n; };
  if (!spins || !spin_until(all_done)) {
    for (uint32_t seen = completed.load(); seen != n; seen = completed.load()) completed.wait(seen);
  }
  if (failed.load()) {
    failed.store(false);
    std::rethrow_exception(std::exchange(error, nullptr));
  }
}

ThreadPool::ThreadPool(int threads, std::vector<int> cpus)
    : threads_(threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()))) {
  MORAINE_CHECK(threads >= 0);
  MORAINE_CHECK(cpus.empty() || std::ssize(cpus) == threads_);
  if (threads_ == 1) return;
  impl_ = std::make_unique<Impl>(threads_, threads_ <= allowed_cpu_count());
  impl_->start(cpus);
}

ThreadPool::~ThreadPool() = default;

void ThreadPool::parallel_for(int64_t n_tasks, const std::function<void(int64_t task, int worker)>& fn) {
  MORAINE_CHECK(n_tasks <= std::numeric_limits<uint32_t>::max());
  if (impl_ == nullptr || n_tasks <= 1) {
    for (int64_t task = 0; task < n_tasks; ++task) fn(task, 0);
    return;
  }
  impl_->run(static_cast<uint32_t>(n_tasks), fn);
}

}  // namespace moraine::cpu
