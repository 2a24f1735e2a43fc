// How fast F8_E4M3 weights become packed matrices of each format: what `convert` does with an expert, from memory to
// memory. Bytes per second are those of the FP8 source.
//   quantize_bench [--benchmark_filter=Q4_K]
#include <benchmark/benchmark.h>

#include <vector>

#include "quant/packed_matrix.h"
#include "quant/quantize.h"
#include "runtime/checkpoint_tensor.h"
#include "tools/random_weights.h"

namespace moraine {
namespace {

constexpr int64_t kRows = 256, kCols = 7168;

void pack(benchmark::State& state, quant::DType type) {
  tools::LaneRandom random(1, "bench");
  std::vector<std::byte> weight(static_cast<size_t>(kRows * kCols));
  std::vector<std::byte> scales(static_cast<size_t>(kRows / quant::kFp8Block * kCols / quant::kFp8Block) * 4);
  tools::fill_tensor(random, quant::DType::kF8E4M3, {}, weight);
  tools::fill_tensor(random, quant::DType::kF32, {.mean = 1e-4f, .deviation = 1e-5f}, scales);
  std::vector<std::byte> packed(quant::packed_bytes(type, kRows, kCols));
  for (auto iteration : state) {
    runtime::pack_checkpoint_tensor(quant::DType::kF8E4M3, weight, scales, type, kRows, kCols, packed);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * kRows * kCols);
}

void add_benchmarks() {
  for (const quant::DType type : {quant::DType::kBF16, quant::DType::kQ8_0, quant::DType::kQ6_K, quant::DType::kQ5_K,
                                  quant::DType::kQ4_K, quant::DType::kIQ4_XS, quant::DType::kQ3_K, quant::DType::kQ2_K,
                                  quant::DType::kQ4_0, quant::DType::kQ5_0, quant::DType::kIQ4_NL}) {
    benchmark::RegisterBenchmark(std::string(quant::dtype_name(type)).c_str(), pack, type)
        ->Threads(1)
        ->Threads(2)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace
}  // namespace moraine

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  moraine::add_benchmarks();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
