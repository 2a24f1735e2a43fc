#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "cpu/expert_ffn.h"
#include "cpu/isa.h"
#include "cpu/matmul.h"
#include "cpu/quantized_rows.h"
#include "offload/host_arena.h"

// Speed of the int8 and f32 kernels on R1's shapes beside the machine's own limits, all in one run: `dram_read` and
// `vnni_peak` are what GB/s and GOP/s may be compared with. Weights rotate through kWeightBytes, so that they come from
// memory and not from a cache. Rates are of CPU time with one thread, so that a busy machine disturbs them little, and
// of wall time with more.
//   kernel_bench --benchmark_filter='Q4_K|dram|peak' --benchmark_repetitions=3
namespace moraine::cpu {
namespace {

using quant::DType;

constexpr uint64_t kWeightBytes = 3u << 29;
constexpr int64_t kHidden = 7168;
constexpr int64_t kIntermediate = 2048;

/// Random weights, scales finite, in huge pages as the program's are.
const std::byte* weights() {
  static offload::MappedMemory memory;
  static std::byte* data = [] {
    std::byte* bytes = memory.take(kWeightBytes);
    uint64_t state = 1;
    for (uint64_t i = 0; i < kWeightBytes; i += sizeof(state)) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const uint64_t finite = (state ^ state >> 29) & 0xbfffbfffbfffbfffu;  // no 16 bits are an f16 NaN or infinity
      std::memcpy(bytes + i, &finite, sizeof(finite));
    }
    return bytes;
  }();
  return data;
}

/// Gives out matrices from all over the weights, one after the other.
class Rotation {
 public:
  quant::PackedView next(DType type, int64_t rows, int64_t cols) {
    const uint64_t bytes = quant::packed_bytes(type, rows, cols);
    if (at_ + bytes > kWeightBytes) at_ = 0;
    const quant::PackedView view{type, rows, cols, weights() + at_};
    at_ += bytes;
    return view;
  }

 private:
  uint64_t at_ = 0;
};

void report(benchmark::State& state, double bytes, double operations) {
  const auto iterations = static_cast<double>(state.iterations());
  state.counters["GB/s"] = benchmark::Counter(bytes * iterations / 1e9, benchmark::Counter::kIsRate);
  state.counters["GOP/s"] = benchmark::Counter(operations * iterations / 1e9, benchmark::Counter::kIsRate);
}

std::vector<float> activations(int64_t count) {
  std::vector<float> x(static_cast<size_t>(count));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * 7919 % 2001) - 1000) * 1e-3f;
  return x;
}

/// x [tokens, 7168] times a matrix [2048, 7168].
void bench_matmul(benchmark::State& state, DType type, bool precise) {
  const int64_t tokens = state.range(0);
  Workers workers(select_kernels(), static_cast<int>(state.range(1)), precise);
  const std::vector<float> x = activations(tokens * kHidden);
  std::vector<float> y(static_cast<size_t>(tokens * kIntermediate));
  Rotation rotation;
  weights();
  for (auto _ : state) {
    matmul(workers, rotation.next(type, kIntermediate, kHidden), {.data = x.data(), .stride = kHidden}, tokens,
           y.data(), kIntermediate);
  }
  report(state, static_cast<double>(quant::packed_bytes(type, kIntermediate, kHidden)),
         2.0 * static_cast<double>(tokens * kIntermediate * kHidden));
}

/// The matrices of R1 that decode streams one by one.
struct Shape {
  const char* name;
  int64_t rows, cols;
};
constexpr Shape kDecodeShapes[] = {{"q_a", 1536, 7168},        {"kv_a", 576, 7168},   {"q_b", 24576, 1536},
                                   {"o", 7168, 16384},         {"gate", 18432, 7168}, {"down", 7168, 18432},
                                   {"shared_down", 7168, 2048}};

constexpr Shape kRouter = {"router", 256, 7168};

/// One token times one matrix of `shape`.
void bench_decode(benchmark::State& state, DType type, const Shape& shape) {
  Workers workers(select_kernels(), static_cast<int>(state.range(1)));
  const std::vector<float> x = activations(shape.cols);
  std::vector<float> y(static_cast<size_t>(shape.rows));
  Rotation rotation;
  weights();
  for (auto _ : state) {
    matmul(workers, rotation.next(type, shape.rows, shape.cols), {.data = x.data(), .stride = shape.cols}, 1, y.data(),
           shape.rows);
  }
  report(state, static_cast<double>(quant::packed_bytes(type, shape.rows, shape.cols)),
         2.0 * static_cast<double>(shape.rows * shape.cols));
}

/// A layer's eight experts, each with `tokens` rows: what decode (1 token) and prefill do per MoE layer.
/// `stream_rows`: up to so many rows weights are used straight from memory.
void bench_experts(benchmark::State& state, DType type, int64_t stream_rows) {
  constexpr int64_t kExperts = 8;
  const int64_t tokens = state.range(0);
  KernelTable kernels = select_kernels();
  kernels.int8_stream_rows = stream_rows;
  Workers workers(kernels, static_cast<int>(state.range(1)));
  const std::vector<float> x = activations(tokens * kHidden);
  std::vector<float> inner(static_cast<size_t>(kExperts * tokens * kIntermediate));
  std::vector<float> out(static_cast<size_t>(kExperts * tokens * kHidden));
  Rotation rotation;
  weights();
  for (auto _ : state) {
    std::vector<FfnJob> jobs;
    for (int64_t e = 0; e < kExperts; ++e) {
      jobs.push_back({.gate = rotation.next(type, kIntermediate, kHidden),
                      .up = rotation.next(type, kIntermediate, kHidden),
                      .down = rotation.next(type, kHidden, kIntermediate),
                      .x = {.data = x.data(), .stride = kHidden},
                      .token_count = tokens,
                      .inner = inner.data() + e * tokens * kIntermediate,
                      .out = out.data() + e * tokens * kHidden,
                      .out_stride = kHidden});
    }
    run_ffn(workers, jobs);
  }
  report(state, 3.0 * kExperts * static_cast<double>(quant::packed_bytes(type, kIntermediate, kHidden)),
         2.0 * 3.0 * kExperts * static_cast<double>(tokens * kIntermediate * kHidden));
}

void bench_quantize(benchmark::State& state) {
  const std::vector<float> x = activations(kHidden);
  FloatBuffer memory;
  const KernelTable& kernels = select_kernels();
  const Int8Rows rows = place_int8_rows(kernels, memory.get(int8_rows_floats(kernels, 1, kHidden)), 1, kHidden);
  for (auto _ : state) {
    kernels.quantize_activations(x.data(), rows, 0);
    benchmark::DoNotOptimize(rows.q);
  }
  report(state, kHidden * sizeof(float), kHidden);
}

/// Sum of `size_bytes`, read from four places in turn: one stream leaves some of the memory's parallelism unused.
[[gnu::target("avx512f")]] int64_t read_streams(const std::byte* data, uint64_t size_bytes) {
  constexpr uint64_t kStreams = 4, kStepBytes = 256;
  const uint64_t part_bytes = size_bytes / kStreams;
  __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
  for (uint64_t at = 0; at < part_bytes; at += kStepBytes) {
    for (uint64_t stream = 0; stream < kStreams; ++stream) {
      const std::byte* step = data + stream * part_bytes + at;
      a = _mm512_add_epi64(a, _mm512_load_si512(step));
      b = _mm512_add_epi64(b, _mm512_load_si512(step + 64));
      c = _mm512_add_epi64(c, _mm512_load_si512(step + 128));
      d = _mm512_add_epi64(d, _mm512_load_si512(step + 192));
    }
  }
  alignas(64) int64_t lanes[8];
  _mm512_store_si512(lanes, _mm512_add_epi64(_mm512_add_epi64(a, b), _mm512_add_epi64(c, d)));
  return std::accumulate(lanes, lanes + 8, int64_t{0});
}

void bench_dram_read(benchmark::State& state) {
  if (!isa_available(Isa::kAvx512)) return state.SkipWithError("no AVX-512");
  constexpr uint64_t kTaskBytes = 16u << 20;
  ThreadPool pool(static_cast<int>(state.range(1)));
  weights();
  for (auto _ : state) {
    pool.parallel_for(kWeightBytes / kTaskBytes, [&](int64_t task, int) {
      benchmark::DoNotOptimize(read_streams(weights() + static_cast<uint64_t>(task) * kTaskBytes, kTaskBytes));
    });
  }
  report(state, kWeightBytes, 0.0);
}

/// 12 independent chains of vpdpbusd: two per cycle at latency 5, where the core has two such units.
[[gnu::target("avx512f,avx512vnni")]] void dot_chains(int64_t rounds) {
  const __m512i codes = _mm512_set1_epi8(3), x = _mm512_set1_epi8(2);
  __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a;
  for (int64_t round = 0; round < rounds; round += 8) {
    asm(".rept 8\n"
        "vpdpbusd %12, %13, %0\n vpdpbusd %12, %13, %1\n vpdpbusd %12, %13, %2\n vpdpbusd %12, %13, %3\n"
        "vpdpbusd %12, %13, %4\n vpdpbusd %12, %13, %5\n vpdpbusd %12, %13, %6\n vpdpbusd %12, %13, %7\n"
        "vpdpbusd %12, %13, %8\n vpdpbusd %12, %13, %9\n vpdpbusd %12, %13, %10\n vpdpbusd %12, %13, %11\n"
        ".endr"
        : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h), "+v"(i), "+v"(j), "+v"(k), "+v"(l)
        : "v"(x), "v"(codes));
  }
  // The asm is not volatile: its results must be used.
  for (const __m512i sum : {b, c, d, e, f, g, h, i, j, k, l}) a = _mm512_add_epi32(a, sum);
  benchmark::DoNotOptimize(a);
}

void bench_vnni_peak(benchmark::State& state) {
  if (!isa_available(Isa::kAvx512)) return state.SkipWithError("no AVX-512 VNNI");
  constexpr int64_t kRounds = 1 << 20;
  const int64_t threads = state.range(1);
  ThreadPool pool(static_cast<int>(threads));
  for (auto _ : state) pool.parallel_for(threads, [](int64_t, int) { dot_chains(kRounds); });
  report(state, 0.0, 2.0 * 64 * 12 * static_cast<double>(kRounds * threads));
}

/// Registers `name` with its arguments for 1 and 2 threads.
template <class Function>
void add(const std::string& name, const std::vector<int64_t>& tokens, Function function) {
  for (const int64_t threads : {1, 2}) {
    auto* bench = benchmark::RegisterBenchmark((name + "/threads:" + std::to_string(threads)).c_str(), function);
    if (threads > 1) bench->UseRealTime();
    bench->Unit(benchmark::kMillisecond);
    for (const int64_t count : tokens) bench->Args({count, threads});
  }
}

void register_all() {
  add("dram_read", {0}, bench_dram_read);
  add("vnni_peak", {0}, bench_vnni_peak);
  benchmark::RegisterBenchmark("quantize_activations", bench_quantize);
  for (const Shape& shape : kDecodeShapes) {
    add(std::string("decode/Q8_0/") + shape.name, {1},
        [&shape](benchmark::State& state) { bench_decode(state, DType::kQ8_0, shape); });
  }
  add("decode/F32/router", {1}, [](benchmark::State& state) { bench_decode(state, DType::kF32, kRouter); });
  const std::vector<int64_t> tokens = {1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 128};
  const int64_t stream_rows = select_kernels().int8_stream_rows;
  for (const DType type :
       {DType::kQ8_0, DType::kQ6_K, DType::kQ5_K, DType::kQ4_K, DType::kQ4_0, DType::kIQ4_XS, DType::kQ3_K,
        DType::kQ2_K, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kIQ4_NL, DType::kIQ3_XXS, DType::kIQ3_S,
        DType::kIQ2_XXS, DType::kIQ2_XS, DType::kIQ2_S, DType::kIQ1_S, DType::kIQ1_M}) {
    const std::string name(quant::dtype_name(type));
    add("matmul/" + name, tokens, [type](benchmark::State& state) { bench_matmul(state, type, false); });
    add("matmul_precise/" + name, tokens, [type](benchmark::State& state) { bench_matmul(state, type, true); });
    add("experts/" + name, tokens,
        [type, stream_rows](benchmark::State& state) { bench_experts(state, type, stream_rows); });
    // Through a panel where experts/ takes the weights from memory: which of the two is faster from how many rows on.
    std::vector<int64_t> few(static_cast<size_t>(std::min<int64_t>(stream_rows, 8)));
    std::iota(few.begin(), few.end(), 1);
    add("experts_panel/" + name, few, [type](benchmark::State& state) { bench_experts(state, type, 0); });
  }
}

}  // namespace
}  // namespace moraine::cpu

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  moraine::cpu::register_all();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
