#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "cpu/thread_pool.h"

namespace moraine::cpu {

/// What is read and multiplied to find the machine's limits. The defaults are for real measurements; tests ask for
/// less.
struct LimitSizes {
  uint64_t read_bytes = 3u << 29;  ///< of the buffer; must be far above what the caches hold
  int64_t tokens = 1024;           ///< matmul: [tokens, cols] · [cols, rows]
  int64_t cols = 7168;
  int64_t rows = 2048;
  double max_s = 0.6;  ///< for each of the three; the first run of each is always whole
};

/// What this machine can do at most, as far as it was measured. GB = 10⁹ bytes; a multiply-add is 2 FLOP.
struct MachineLimits {
  std::optional<double> dram_read_gb_per_s = {};
  std::optional<double> int8_gflop_per_s = {};  ///< oneDNN matmul u8 × s8 → s32
  std::optional<double> bf16_gflop_per_s = {};  ///< oneDNN matmul bf16 × bf16 → f32
};

/// The mean of the two in the middle, if they are an even number. Nothing of none.
std::optional<double> median_of(std::vector<double> values);

/// The speeds of single runs, in the order they were made. Empty where nothing was measured.
struct LimitSamples {
  std::vector<double> dram_read_gb_per_s = {};
  std::vector<double> int8_gflop_per_s = {};
  std::vector<double> bf16_gflop_per_s = {};

  LimitSamples& operator+=(const LimitSamples& others);
  /// What the machine can do at most.
  MachineLimits fastest() const;
  /// What it could do at this time: comparable with a median of something else.
  MachineLimits median() const;
};

/// Reads a buffer of `read_bytes` with all threads of the pool, each from four places at a time, again and again for
/// max_s: the speed of every pass. Throws quant::Error(kNotEnough) if the memory can't be had.
std::vector<double> measure_dram_read_gb_per_s(ThreadPool& pool, const LimitSizes& sizes);

/// Runs of oneDNN's matmul with as many threads as the pool has, weights in the order oneDNN likes best. Nothing where
/// oneDNN has only its reference code for these types.
std::vector<double> measure_int8_gflop_per_s(const ThreadPool& pool, const LimitSizes& sizes);
std::vector<double> measure_bf16_gflop_per_s(const ThreadPool& pool, const LimitSizes& sizes);

/// All three.
LimitSamples measure_machine_limits(ThreadPool& pool, const LimitSizes& sizes);

}  // namespace moraine::cpu
