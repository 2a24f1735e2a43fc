#include "cpu/machine_limits.h"

#include <tbb/task_arena.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <dnnl.hpp>
#include <functional>
#include <string_view>
#include <vector>

#include "cpu/isa.h"
#include "offload/host_arena.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

using Clock = std::chrono::steady_clock;

/// One thread's task: small enough to balance the load, large enough that the four streams run long.
constexpr uint64_t kTaskBytes = 16u << 20;
constexpr int kStreams = 4;
constexpr uint64_t kStreamStepBytes = 256;

/// Sum of `size_bytes` (a multiple of kStreams × kStreamStepBytes) as 64-bit integers, read from kStreams places in
/// turn: one stream alone leaves some of the memory's parallelism unused.
template <typename Vector>
[[gnu::always_inline]] inline uint64_t sum_streams(const std::byte* data, uint64_t size_bytes) {
  constexpr uint64_t kLoads = kStreamStepBytes / sizeof(Vector);
  const uint64_t part_bytes = size_bytes / kStreams;
  Vector sums[kLoads] = {};
  for (uint64_t at = 0; at < part_bytes; at += kStreamStepBytes) {
    for (int stream = 0; stream < kStreams; ++stream) {
      const auto* step = reinterpret_cast<const Vector*>(data + static_cast<uint64_t>(stream) * part_bytes + at);
      for (uint64_t i = 0; i < kLoads; ++i) sums[i] += step[i];
    }
  }
  uint64_t total = 0;
  for (const Vector& sum : sums) {
    for (size_t lane = 0; lane < sizeof(Vector) / sizeof(uint64_t); ++lane) total += sum[lane];
  }
  return total;
}

using Vector512 = uint64_t __attribute__((vector_size(64)));
using Vector128 = uint64_t __attribute__((vector_size(16)));

[[gnu::target("avx512f")]] uint64_t sum_avx512(const std::byte* data, uint64_t size_bytes) {
  return sum_streams<Vector512>(data, size_bytes);
}
uint64_t sum_sse2(const std::byte* data, uint64_t size_bytes) {
  return sum_streams<Vector128>(data, size_bytes);
}

/// Memory that only these measurements use, in huge pages where the system has them, as the weights are.
class ScratchMemory {
 public:
  explicit ScratchMemory(uint64_t size_bytes) : size_bytes_(size_bytes), data_(memory_.take(size_bytes)) {}
  ~ScratchMemory() { memory_.give_back(data_, size_bytes_); }
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;
  std::byte* data() const { return data_; }

 private:
  offload::MappedMemory memory_;
  uint64_t size_bytes_;
  std::byte* data_;
};

/// 10⁹ of `amount` per second in each of several runs: the first, and more until `max_s` are over.
std::vector<double> giga_per_s_of_runs(double amount, double max_s, const std::function<void()>& run) {
  std::vector<double> speeds;
  double spent_s = 0.0;
  do {
    const auto start = Clock::now();
    run();
    const double run_s = std::chrono::duration<double>(Clock::now() - start).count();
    speeds.push_back(amount / run_s / 1e9);
    spent_s += run_s;
  } while (spent_s < max_s);
  return speeds;
}

std::optional<double> largest_of(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  return *std::max_element(values.begin(), values.end());
}

using DnnlType = dnnl::memory::data_type;

/// Memory for oneDNN, filled so that every type sees small finite numbers and no two neighbours are alike.
dnnl::memory filled_memory(const dnnl::memory::desc& description, const dnnl::engine& engine) {
  dnnl::memory memory(description, engine);
  auto* bytes = static_cast<unsigned char*>(memory.get_data_handle());
  for (size_t i = 0; i < description.get_size(); ++i) bytes[i] = static_cast<unsigned char>((i * 37 + i / 256) & 0x3f);
  return memory;
}

std::vector<double> matmul_speeds(const LimitSizes& sizes, DnnlType x_type, DnnlType w_type, DnnlType y_type) {
  using dnnl::memory;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc x({sizes.tokens, sizes.cols}, x_type, memory::format_tag::ab);
  const memory::desc w({sizes.cols, sizes.rows}, w_type, memory::format_tag::any);
  const memory::desc y({sizes.tokens, sizes.rows}, y_type, memory::format_tag::ab);
  const dnnl::matmul::primitive_desc description(engine, x, w, y);
  // The reference code would take minutes and say nothing about the machine.
  if (std::string_view(description.impl_info_str()).find("ref") != std::string_view::npos) return {};
  const dnnl::matmul multiply(description);
  const memory x_memory = filled_memory(description.src_desc(), engine);
  const memory w_memory = filled_memory(description.weights_desc(), engine);
  const memory y_memory(description.dst_desc(), engine);
  const auto run = [&] {
    multiply.execute(stream, {{DNNL_ARG_SRC, x_memory}, {DNNL_ARG_WEIGHTS, w_memory}, {DNNL_ARG_DST, y_memory}});
    stream.wait();
  };
  run();  // memory is touched, code is in place
  return giga_per_s_of_runs(2.0 * static_cast<double>(sizes.tokens * sizes.cols * sizes.rows), sizes.max_s, run);
}

std::vector<double> matmul_gflop_per_s(const ThreadPool& pool, const LimitSizes& sizes, DnnlType x_type,
                                       DnnlType w_type, DnnlType y_type) {
  MORAINE_CHECK(sizes.tokens > 0 && sizes.cols > 0 && sizes.rows > 0);
  tbb::task_arena arena(pool.threads());
  try {
    return arena.execute([&] { return matmul_speeds(sizes, x_type, w_type, y_type); });
  } catch (const dnnl::error&) {
    return {};  // types that oneDNN does not multiply on this machine
  }
}

}  // namespace

std::optional<double> median_of(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2.0;
}

LimitSamples& LimitSamples::operator+=(const LimitSamples& others) {
  const auto append = [](std::vector<double>& to, const std::vector<double>& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  append(dram_read_gb_per_s, others.dram_read_gb_per_s);
  append(int8_gflop_per_s, others.int8_gflop_per_s);
  append(bf16_gflop_per_s, others.bf16_gflop_per_s);
  return *this;
}

MachineLimits LimitSamples::fastest() const {
  return {.dram_read_gb_per_s = largest_of(dram_read_gb_per_s),
          .int8_gflop_per_s = largest_of(int8_gflop_per_s),
          .bf16_gflop_per_s = largest_of(bf16_gflop_per_s)};
}

MachineLimits LimitSamples::median() const {
  return {.dram_read_gb_per_s = median_of(dram_read_gb_per_s),
          .int8_gflop_per_s = median_of(int8_gflop_per_s),
          .bf16_gflop_per_s = median_of(bf16_gflop_per_s)};
}

std::vector<double> measure_dram_read_gb_per_s(ThreadPool& pool, const LimitSizes& sizes) {
  const auto n_tasks = static_cast<int64_t>(std::max<uint64_t>(1, sizes.read_bytes / kTaskBytes));
  const uint64_t read_bytes = static_cast<uint64_t>(n_tasks) * kTaskBytes;
  const ScratchMemory memory(read_bytes);
  const auto place = [&](int64_t task) { return memory.data() + static_cast<uint64_t>(task) * kTaskBytes; };
  pool.parallel_for(n_tasks, [&](int64_t task, int) { std::memset(place(task), 1, kTaskBytes); });
  const auto sum = isa_available(Isa::kAvx512) ? &sum_avx512 : &sum_sse2;
  std::vector<uint64_t> sums(static_cast<size_t>(n_tasks));
  const auto speeds = giga_per_s_of_runs(static_cast<double>(read_bytes), sizes.max_s, [&] {
    pool.parallel_for(n_tasks,
                      [&](int64_t task, int) { sums[static_cast<size_t>(task)] = sum(place(task), kTaskBytes); });
  });
  // Every byte is 1: what was not read, or read twice, shows.
  for (const uint64_t task_sum : sums) MORAINE_CHECK(task_sum == kTaskBytes / 8 * 0x0101010101010101u);
  return speeds;
}

std::vector<double> measure_int8_gflop_per_s(const ThreadPool& pool, const LimitSizes& sizes) {
  return matmul_gflop_per_s(pool, sizes, DnnlType::u8, DnnlType::s8, DnnlType::s32);
}

std::vector<double> measure_bf16_gflop_per_s(const ThreadPool& pool, const LimitSizes& sizes) {
  return matmul_gflop_per_s(pool, sizes, DnnlType::bf16, DnnlType::bf16, DnnlType::f32);
}

LimitSamples measure_machine_limits(ThreadPool& pool, const LimitSizes& sizes) {
  return {.dram_read_gb_per_s = measure_dram_read_gb_per_s(pool, sizes),
          .int8_gflop_per_s = measure_int8_gflop_per_s(pool, sizes),
          .bf16_gflop_per_s = measure_bf16_gflop_per_s(pool, sizes)};
}

}  // namespace moraine::cpu
