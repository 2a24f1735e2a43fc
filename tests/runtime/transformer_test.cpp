#include "runtime/transformer.h"

#include <gtest/gtest.h>

#include "quant/error.h"
#include "support/expect_error.h"
#include "support/fake_backend.h"
#include "support/numbered_experts.h"

namespace moraine::runtime {
namespace {

using testing::FakeBackend;
using testing::FakeCache;
using testing::NumberedExperts;
using testing::TempDir;

ModelConfig small_config() {
  ModelConfig config;
  config.vocab_size = 32;
  config.hidden_size = 2;
  config.num_hidden_layers = 3;
  config.first_k_dense_replace = 1;
  config.n_routed_experts = 6;
  config.num_experts_per_tok = 2;
  config.norm_topk_prob = true;
  config.routed_scaling_factor = 1.0;
  return config;
}

/// A transformer over the twins; `slots` records fit the budget.
struct Rig {
  explicit Rig(int slots = 12) : source(std::make_shared<NumberedExperts>(dir, 1, 3, 6)) {
    model.config = small_config();
    model.layers.resize(3);
    for (LayerWeights& layer : model.layers) layer.e_score_correction_bias.assign(6, 0.0f);
    store = std::make_unique<offload::ExpertStore>(
        source, offload::StoreOptions{.budget_bytes = static_cast<uint64_t>(slots) * NumberedExperts::kRecordBytes}, 1);
    transformer = std::make_unique<Transformer>(model, backend, backend, *store, std::vector<quant::ExpertLayout>(3));
  }

  /// Hidden states after the last layer of one step over `tokens` of a fresh sequence.
  std::vector<float> last_hidden(const std::vector<int32_t>& tokens) {
    struct Last final : StepObserver {
      std::vector<float> values;
      bool wants_hidden() const override { return true; }
      void hidden(int, std::span<const float> hidden) override { values.assign(hidden.begin(), hidden.end()); }
    } observer;
    FakeCache cache;
    const SequenceSlice slice{&cache, 0, 0, static_cast<int32_t>(tokens.size())};
    transformer->step({tokens, std::span(&slice, 1)}, {}, {}, {}, &observer);
    return observer.values;
  }

  TempDir dir;
  std::shared_ptr<NumberedExperts> source;
  Model model;
  FakeBackend backend{small_config()};
  std::unique_ptr<offload::ExpertStore> store;
  std::unique_ptr<Transformer> transformer;
};

TEST(Transformer, EveryRowGetsTheWeightedSumOfItsExperts) {
  Rig rig;
  const std::vector<int32_t> tokens{3, 4, 9};
  const std::vector<float> hidden = rig.last_hidden(tokens);
  const Router router(small_config());
  for (size_t row = 0; row < tokens.size(); ++row) {
    float expected = static_cast<float>(tokens[row]);
    for (int layer = 1; layer < 3; ++layer) {
      std::vector<float> logits(6);
      for (int32_t e = 0; e < 6; ++e) logits[static_cast<size_t>(e)] = rig.backend.affinity(layer, tokens[row], e);
      std::vector<RoutedExpert> chosen(2);
      router.route(logits, std::vector<float>(6, 0.0f), chosen);
      float routed = 0.0f;
      for (const RoutedExpert& expert : chosen)
        routed += expert.weight * NumberedExperts::number_of({layer, expert.expert});
      expected += routed;
    }
    EXPECT_FLOAT_EQ(hidden[row * 2], expected) << row;
  }
}

TEST(Transformer, TheBudgetChangesNoResult) {
  const std::vector<int32_t> tokens{1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<float> whole = Rig(12).last_hidden(tokens);
  for (const int slots : {1, 2, 3, 6}) EXPECT_EQ(Rig(slots).last_hidden(tokens), whole) << slots;
}

TEST(Transformer, AsksTheNextLayersRouterEarlyInDecode) {
  Rig rig(4);
  rig.last_hidden({5});
  EXPECT_EQ(rig.backend.predicted_layers, (std::vector<int>{1, 2}))
      << "each layer hints the next; the last hints nothing";
}

TEST(Transformer, AnErrorLeavesTheCachesAsTheyWere) {
  Rig rig;
  FakeCache cache;
  cache.tokens = {1, 2};
  const std::vector<int32_t> tokens{3, 4};
  const SequenceSlice slice{&cache, 2, 0, 2};
  const StepBatch batch{tokens, std::span(&slice, 1)};
  rig.backend.fail_at_layer = 2;
  EXPECT_THROW(rig.transformer->step(batch, {}, {}), quant::Error);
  EXPECT_EQ(cache.token_count(), 2);

  rig.backend.fail_at_layer = -1;
  int asked = 0;
  EXPECT_THROW(rig.transformer->step(batch, {}, {}, [&] { return ++asked == 2; }), StopRequested);
  EXPECT_EQ(cache.token_count(), 2);

  rig.transformer->step(batch, {}, {});
  EXPECT_EQ(cache.token_count(), 4);
}

TEST(Transformer, ABadRecordFailsTheStepAndTheNextOneWorks) {
  Rig rig;
  const std::vector<float> good = rig.last_hidden({6});
  Rig broken;
  broken.source->fail_expert = {2, 1};
  broken.backend.affinity = [](int layer, int32_t token, int32_t expert) {
    return layer == 2 && token == 1 ? static_cast<float>(-expert) : static_cast<float>((token * 7 + expert * 3) % 11);
  };
  testing::expect_error(quant::ErrorKind::kChecksum, {"injected"}, [&] { broken.last_hidden({1}); });
  EXPECT_EQ(broken.last_hidden({6}), good);
}

TEST(Transformer, LogitsAreThoseOfTheRowsAsked) {
  Rig rig;
  rig.backend.next_token = [](const std::vector<int32_t>& tokens) { return tokens.back() + 1; };
  FakeCache a, b;
  const std::vector<int32_t> tokens{3, 4, 9};
  const SequenceSlice slices[] = {{&a, 0, 0, 2}, {&b, 0, 2, 1}};
  const std::vector<int32_t> rows{1, 2};
  std::vector<float> logits(2 * 32);
  rig.transformer->step({tokens, slices}, rows, logits);
  EXPECT_EQ(logits[5], 1.0f);
  EXPECT_EQ(logits[32 + 10], 1.0f);
}

}  // namespace
}  // namespace moraine::runtime
