// A long prompt's attention must not keep its scores: [rows, context] of a late chunk would be hundreds of megabytes.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "cpu/gqa_attention.h"
#include "cpu/isa.h"
#include "cpu/mla_attention.h"
#include "quant/aligned_buffer.h"
#include "support/random_matrix.h"

namespace moraine::cpu {
namespace {

constexpr int64_t kContext = 131072;
constexpr int64_t kRows = 512;
constexpr int64_t kHeads = 2;
/// A tenth of one head's scores in bf16.
constexpr uint64_t kAllowedBytes = kRows * kContext * 2 / 10;

/// A line of /proc/self/status in bytes.
uint64_t status_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return std::stoull(line.substr(name.size() + 1)) * 1024;
  }
  return 0;
}

/// By how much `run` lets the process grow at most while it runs.
template <typename Run>
uint64_t growth_bytes(const Run& run) {
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak begins anew
  const uint64_t before = status_bytes("VmRSS");
  run();
  const uint64_t peak = status_bytes("VmHWM");
  return peak > before ? peak - before : 0;
}

/// Skips where the system does not tell how a process grows.
class AttentionMemorySlow : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto touch = [](uint64_t bytes) {
      return growth_bytes([&] { std::fill_n(quant::AlignedBuffer(bytes).data(), bytes, std::byte{1}); });
    };
    const uint64_t much = touch(2 * kAllowedBytes), little = touch(4096);
    if (much < 2 * kAllowedBytes * 9 / 10 || little > kAllowedBytes / 2) GTEST_SKIP() << much << ", " << little;
  }
};

TEST_F(AttentionMemorySlow, LatentAttentionKeepsNoScoresOf131072Tokens) {
  testing::RandomValues random(1);
  const MlaShape shape{.num_attention_heads = kHeads,
                       .qk_nope_head_dim = 16,
                       .qk_rope_head_dim = 16,
                       .v_head_dim = 16,
                       .kv_lora_rank = 32,
                       .softmax_scale = 0.1f};
  for (const auto& [type, cache_type] :
       {std::pair{quant::DType::kF32, CacheType::kF32}, {quant::DType::kQ8_0, CacheType::kBf16}}) {
    const testing::RandomMatrix kv_b_proj =
        testing::random_matrix(type, kHeads * shape.kv_head_rows(), shape.kv_lora_rank, random, 0.1);
    LatentCache cache(1, shape.kv_lora_rank + shape.qk_rope_head_dim, cache_type);
    cache.reserve(kContext);
    const std::vector<float> q = testing::random_values(kRows * kHeads * shape.qk_head_dim(), 1.0, random);
    std::vector<float> out(static_cast<size_t>(kRows * kHeads * shape.v_head_dim));
    for (const MlaForm form : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
      const uint64_t grown = growth_bytes([&] {
        Workers workers(select_kernels(), 2);
        const MlaSlice slice{&cache, kContext - kRows, 0, kRows, form};
        mla_attention(workers, shape, kv_b_proj.view, 0, {&slice, 1}, q.data(), out.data());
      });
      EXPECT_LT(grown, kAllowedBytes) << static_cast<int>(form) << " " << quant::dtype_name(type);
    }
  }
}

TEST_F(AttentionMemorySlow, GroupedAttentionKeepsNoScoresOf131072Tokens) {
  testing::RandomValues random(2);
  const GqaShape shape{.num_attention_heads = kHeads, .num_key_value_heads = 1, .head_dim = 16, .softmax_scale = 0.1f};
  const std::vector<float> q = testing::random_values(kRows * kHeads * shape.head_dim, 1.0, random);
  std::vector<float> out(q.size());
  for (const CacheType type : {CacheType::kF32, CacheType::kBf16}) {
    HeadCache cache(1, 1, shape.head_dim, type);
    cache.reserve(kContext);
    const uint64_t grown = growth_bytes([&] {
      Workers workers(select_kernels(), 2);
      FloatBuffer partials;
      const GqaSlice slice{&cache, kContext - kRows, 0, kRows};
      gqa_attention(workers, shape, 0, {&slice, 1}, partials, q.data(), out.data());
    });
    EXPECT_LT(grown, kAllowedBytes) << static_cast<int>(type);
  }
}

}  // namespace
}  // namespace moraine::cpu
