#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "cpu/flash_bf16.h"
#include "cpu/isa.h"
#include "cpu/mla_attention.h"
#include "offload/host_arena.h"

// Attention on R1's shape with a bf16 cache and Q8_0 projections, and the kernels it is made of. `useful` counts the
// multiply-adds that docs/benchmarks.md counts; kv_b_proj rotates through 1.5 GiB and the cache through R1's 61 layers,
// so that both come from memory.
//   attention_bench --benchmark_filter='mla/'
namespace moraine::cpu {
namespace {

constexpr MlaShape kR1{.num_attention_heads = 128,
                       .qk_nope_head_dim = 128,
                       .qk_rope_head_dim = 64,
                       .v_head_dim = 128,
                       .kv_lora_rank = 512,
                       .softmax_scale = 0.1f};
constexpr int64_t kKeyWidth = 576;
constexpr uint64_t kWeightBytes = 3u << 29;
constexpr int64_t kLayers = 61;  // so that a long context's latents come from memory as well

/// Random Q8_0 matrices of kv_b_proj's shape, scales finite.
quant::PackedView next_projection() {
  static offload::MappedMemory memory;
  static std::byte* data = [] {
    std::byte* bytes = memory.take(kWeightBytes);
    uint64_t state = 1;
    for (uint64_t i = 0; i < kWeightBytes; i += sizeof(state)) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const uint64_t small = (state ^ state >> 29) & 0x9fff9fff9fff9fffu;  // 16 bits as f16: less than 2^-7
      std::memcpy(bytes + i, &small, sizeof(small));
    }
    return bytes;
  }();
  static uint64_t at = 0;
  const int64_t rows = kR1.num_attention_heads * kR1.kv_head_rows();
  const uint64_t bytes = quant::packed_bytes(quant::DType::kQ8_0, rows, kR1.kv_lora_rank);
  if (at + bytes > kWeightBytes) at = 0;
  const quant::PackedView view{quant::DType::kQ8_0, rows, kR1.kv_lora_rank, data + at};
  at += bytes;
  return view;
}

/// Chosen once: CPUID leaves a virtual machine and takes some 25 µs there.
const Bf16Kernels& kernels() {
  static const Bf16Kernels& table = select_kernels().bf16;
  return table;
}

std::vector<float> numbers(int64_t count) {
  std::vector<float> x(static_cast<size_t>(count));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * 7919 % 2001) - 1000) * 1e-3f;
  return x;
}

void report(benchmark::State& state, double flop, double bytes) {
  const auto iterations = static_cast<double>(state.iterations());
  state.counters["useful"] = benchmark::Counter(flop * iterations, benchmark::Counter::kIsRate);
  state.counters["bytes"] = benchmark::Counter(bytes * iterations, benchmark::Counter::kIsRate);
}

/// `rows` rows after `context` cached tokens.
void bench_mla(benchmark::State& state, int64_t rows, int64_t context, MlaForm form) {
  Workers workers(select_kernels(), static_cast<int>(state.range(0)));
  LatentCache cache(kLayers, kKeyWidth, CacheType::kBf16);
  cache.reserve(context + rows);
  const std::vector<float> latent = numbers(2 * kKeyWidth + 997);
  for (int64_t s = 0; s < context + rows; ++s) {
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      cache.write(workers.kernels(), layer, s, latent.data() + s % 997);
    }
  }
  const std::vector<float> q = numbers(rows * 128 * kR1.qk_head_dim());
  std::vector<float> out(static_cast<size_t>(rows * 128 * kR1.v_head_dim));
  const MlaSlice slice{&cache, context, 0, rows, form};
  quant::PackedView projection = next_projection();
  int64_t layer = 0;
  for (auto _ : state) {
    projection = next_projection();
    mla_attention(workers, kR1, projection, layer, {&slice, 1}, q.data(), out.data());
    layer = (layer + 1) % kLayers;
  }
  const double pairs = static_cast<double>(rows) * static_cast<double>(context) +
                       static_cast<double>(rows) * static_cast<double>(rows + 1) / 2.0;
  const double per_pair = rows == 1 ? 2.0 * 128 * (2 * 512 + 64) : 2.0 * 128 * (128 + 64 + 128);
  report(state, pairs * per_pair, static_cast<double>(quant::packed_bytes(projection.type, projection.rows, 512)));
}

/// rows × k times k × 16 · groups.
void bench_multiply(benchmark::State& state) {
  const int64_t rows = state.range(0), k = state.range(1), groups = state.range(2);
  const std::vector<Bf16> a(static_cast<size_t>(rows * k), 0x3f80), b(static_cast<size_t>(groups * 16 * k), 0x3f80);
  std::vector<float> c(static_cast<size_t>(rows * groups * 16));
  const KernelScope scope(select_kernels());
  for (auto _ : state) {
    kernels().multiply(a.data(), k, rows, {b.data(), 16 * k, groups}, k, state.range(3) != 0, c.data(), groups * 16);
  }
  report(state, 2.0 * static_cast<double>(rows * k * groups * 16), 0.0);
}

void bench_softmax(benchmark::State& state) {
  const std::vector<float> scores = numbers(kFlashTokens * kFlashRows);
  std::vector<float> rows(4 * kFlashRows);
  std::vector<Bf16> weights(static_cast<size_t>(kFlashTokens * kFlashRows));
  std::fill_n(rows.begin(), kFlashRows, static_cast<float>(kFlashTokens - state.range(0)));
  for (auto _ : state) {
    kernels().softmax({.scores = scores.data(),
                       .stride = kFlashRows,
                       .token_count = kFlashTokens,
                       .group_count = kFlashRows / 16,
                       .seen = rows.data(),
                       .scale = 1.0f,
                       .max = rows.data() + kFlashRows,
                       .sum = rows.data() + 2 * kFlashRows,
                       .rescale = rows.data() + 3 * kFlashRows,
                       .weights = weights.data(),
                       .weight_stride = kFlashTokens});
  }
  report(state, static_cast<double>(kFlashTokens * kFlashRows), 0.0);
}

void bench_pair_rows(benchmark::State& state) {
  const std::vector<Bf16> rows(64 * kKeyWidth, 1);
  std::vector<Bf16> out(static_cast<size_t>(64 * 64));
  for (auto _ : state) kernels().pair_rows(rows.data(), kKeyWidth, 64, 4, out.data(), 64 * 16);
  report(state, 0.0, 64 * 64 * 2);
}

/// Heads one after the other, from memory.
void bench_absorb(benchmark::State& state) {
  const std::vector<float> x = numbers(128);
  std::vector<float> out(512);
  quant::AlignedBuffer scratch(kAbsorbScratchBytes);
  const auto group_bytes = static_cast<int64_t>(quant::packed_group_bytes(quant::DType::kQ8_0, 512));
  for (auto _ : state) {
    const quant::PackedView projection = next_projection();
    for (int64_t head = 0; head < 128; ++head) {
      const std::byte* groups = projection.data + head * 16 * group_bytes;
      kernels().absorb_q8_0({groups, group_bytes, 8, 512, groups + 16 * group_bytes}, x.data(), scratch.data(),
                            out.data());
    }
  }
  report(state, 0.0, static_cast<double>(128 * 8 * group_bytes));
}

void register_all() {
  const auto add = [](const std::string& name, int64_t rows, int64_t context, MlaForm form) {
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { bench_mla(state, rows, context, form); })
        ->ArgName("threads")
        ->Arg(1)
        ->Arg(2)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  };
  for (const int64_t context : {0, 512, 8191}) {
    add("mla/decode/" + std::to_string(context), 1, context, MlaForm::kAbsorbed);
  }
  for (const int64_t rows : {16, 64, 128, 512}) {
    for (const int64_t context : {0, 512, 4096}) {
      const std::string name = std::to_string(rows) + "_rows/" + std::to_string(context);
      add("mla/expanded/" + name, rows, context, MlaForm::kExpanded);
      if (rows < 512) add("mla/absorbed/" + name, rows, context, MlaForm::kAbsorbed);
    }
  }
  benchmark::RegisterBenchmark("multiply", bench_multiply)
      ->ArgNames({"rows", "k", "groups", "continued"})
      ->Args({64, 576, 4, 0})
      ->Args({64, 256, 4, 1})
      ->Args({256, 192, 8, 0})
      ->Args({128, 256, 8, 1})
      ->Args({32, 512, 16, 0})
      ->Args({64, 512, 16, 0});
  benchmark::RegisterBenchmark("softmax", bench_softmax)->Arg(0)->Arg(1);
  benchmark::RegisterBenchmark("pair_rows", bench_pair_rows);
  benchmark::RegisterBenchmark("absorb", bench_absorb)->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace moraine::cpu

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  moraine::cpu::register_all();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
