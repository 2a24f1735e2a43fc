// Writes a model directory as DeepSeek-R1 was published (FP8 safetensors with scales, shards, index), cut to a few
// layers, for measuring what reads such a directory:
//   fp8_checkpoint DIRECTORY DENSE_LAYERS MOE_LAYERS SHARDS [sparse]
// with random weights and a vocabulary of 4096 (1 dense and 1 MoE layer are 12.2 GB), or as sparse files of true
// headers with R1's vocabulary and MTP layer (3, 58 and 163 are the whole model and take 12 MB).
#include "support/fp8_checkpoint.h"

#include <fmt/format.h>

#include <cstdlib>

#include "quant/error.h"

int main(int argc, char** argv) {
  if (argc != 5 && argc != 6) {
    fmt::print(stderr, "usage: fp8_checkpoint DIRECTORY DENSE_LAYERS MOE_LAYERS SHARDS [sparse]\n");
    return 2;
  }
  moraine::testing::Fp8Checkpoint wanted;
  wanted.dense_layers = std::atoll(argv[2]);
  wanted.moe_layers = std::atoll(argv[3]);
  wanted.shards = static_cast<size_t>(std::max(1, std::atoi(argv[4])));
  wanted.sparse = wanted.mtp = argc == 6;
  if (!wanted.sparse) wanted.vocab_size = 4096;
  try {
    std::filesystem::create_directories(argv[1]);
    moraine::testing::write_fp8_checkpoint(
        wanted, argv[1], [&](size_t shard) { fmt::print(stderr, "shard {} of {}\n", shard + 1, wanted.shards); });
  } catch (const moraine::quant::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 3;
  }
  return 0;
}
