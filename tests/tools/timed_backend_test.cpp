#include "tools/timed_backend.h"

#include <gtest/gtest.h>

#include <vector>

#include "support/fake_backend.h"

namespace moraine::tools {
namespace {

using testing::FakeBackend;

runtime::ModelConfig small_config() {
  runtime::ModelConfig config;
  config.vocab_size = 8;
  config.hidden_size = 2;
  config.n_routed_experts = 3;
  return config;
}

/// A clock that goes on by 1 s whenever it is read: every call between two readings takes exactly 1 s.
SecondsClock counting_clock() {
  return [seconds = 0.0]() mutable { return ++seconds; };
}

TEST(TimedBackend, GivesEveryCallToItsKind) {
  const runtime::ModelConfig config = small_config();
  const auto fake = std::make_shared<FakeBackend>(config);
  LayerTimes times;
  const auto dense = timed(std::shared_ptr<runtime::DenseBackend>(fake), times, counting_clock());
  const auto experts = timed(std::shared_ptr<runtime::ExpertBackend>(fake), times, counting_clock());

  EXPECT_EQ(dense->max_rows(), fake->max_rows());
  const std::unique_ptr<runtime::KvCache> cache = dense->make_cache();
  const std::vector<int32_t> ids = {5};
  const runtime::SequenceSlice slice{cache.get(), 0, 0, 1};
  std::vector<float> two(2), logits(3), vocabulary(8);
  dense->begin_step({ids, {&slice, 1}});
  dense->attention(0);
  dense->dense_ffn(0);
  dense->attention(1);
  dense->route(1, two, logits);
  dense->predict_route(2, {}, logits);
  experts->begin_experts(two, 1, {}, 1);
  dense->shared_expert(1);
  const float value = 3.0f;
  const runtime::ExpertUse use{.row = 0, .slot = 0, .weight = 0.5f};
  experts->compute_expert(std::as_bytes(std::span(&value, 1)), {&use, 1});
  experts->compute_experts({}, {});
  experts->sum_so_far(two);
  EXPECT_EQ(two[0], 1.5f) << "calls must reach the backend";
  two[0] = 0.0f;
  experts->finish_experts(two);
  EXPECT_EQ(two[0], 1.5f) << "calls must reach the backend";
  dense->combine(1, two);
  const int32_t row = 0;
  dense->head({&row, 1}, vocabulary);
  std::vector<float> hidden(2);
  dense->read_hidden(hidden);

  EXPECT_EQ(hidden[0], 6.5f);
  EXPECT_EQ(vocabulary[5], 1.0f);
  EXPECT_EQ(fake->predicted_layers, std::vector<int>{2});
  EXPECT_EQ(times.seconds[LayerKind::kEmbed], 1.0);
  EXPECT_EQ(times.seconds[LayerKind::kAttention], 2.0);
  EXPECT_EQ(times.seconds[LayerKind::kDenseFfn], 1.0);
  EXPECT_EQ(times.seconds[LayerKind::kRoute], 2.0);
  EXPECT_EQ(times.seconds[LayerKind::kShared], 2.0);
  EXPECT_EQ(times.seconds[LayerKind::kRouted], 4.0);
  EXPECT_EQ(times.seconds[LayerKind::kHead], 1.0);
  EXPECT_EQ(times.total_s(), 13.0);
}

TEST(TimedBackend, CountsACallThatThrows) {
  const auto fake = std::make_shared<FakeBackend>(small_config());
  fake->fail_at_layer = 1;
  LayerTimes times;
  const auto dense = timed(std::shared_ptr<runtime::DenseBackend>(fake), times, counting_clock());
  EXPECT_THROW(dense->attention(1), quant::Error);
  EXPECT_EQ(times.seconds[LayerKind::kAttention], 1.0);
}

TEST(SteadySeconds, NeverGoesBack) {
  const SecondsClock clock = steady_seconds();
  const double first = clock();
  EXPECT_GE(clock(), first);
}

}  // namespace
}  // namespace moraine::tools
