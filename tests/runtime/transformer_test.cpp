#include "runtime/transformer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "offload/open_reader.h"
#include "quant/error.h"
#include "support/expect_error.h"
#include "support/fake_backend.h"
#include "support/faulty_reader.h"
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
  explicit Rig(int slots = 12, std::vector<testing::Fault> faults = {})
      : source(std::make_shared<NumberedExperts>(dir, 1, 3, 6)) {
    model.config = small_config();
    model.layers.resize(3);
    for (LayerWeights& layer : model.layers) layer.e_score_correction_bias.assign(6, 0.0f);
    auto reader = std::make_unique<testing::FaultyReader>(
        offload::open_reader(offload::ReaderKind::kAuto, source->files(), {}, {}), std::move(faults));
    drive = reader.get();
    store = std::make_unique<offload::ExpertStore>(
        source, offload::StoreOptions{.budget_bytes = static_cast<uint64_t>(slots) * NumberedExperts::kRecordBytes}, 1,
        std::move(reader));
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
  testing::FaultyReader* drive = nullptr;
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
  std::vector<int> early = rig.backend.predicted_layers;
  for (size_t i = 0; i < rig.backend.refined_layers.size(); ++i) early.pop_back();  // behind layer 1, if it waited
  EXPECT_EQ(early, (std::vector<int>{1, 1, 1, 2}))
      << "the embedding, both halves of the dense layer and layer 1; the last hints nothing";
}

TEST(Transformer, GuessesAgainWhileTheLastExpertIsOnItsWay) {
  // Layer 1 wants experts 0 and 1, and the drive holds 1 back until layer 2 was guessed with what 0 has added.
  constexpr uint64_t kRecord = NumberedExperts::kRecordBytes;
  Rig rig(4, {{.kind = testing::Fault::Kind::kDelay, .file = 0, .begin = kRecord, .end = 2 * kRecord}});
  rig.backend.affinity = [](int, int32_t, int32_t expert) { return static_cast<float>(-expert); };
  rig.backend.on_refined = [&] { rig.drive->let_go(); };
  const std::jthread watchdog([&](const std::stop_token& done) {
    for (int i = 0; i < 1000 && !done.stop_requested(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    rig.drive->let_go();
  });
  rig.last_hidden({5});
  ASSERT_GE(rig.backend.refined_layers.size(), 1u);
  EXPECT_EQ(rig.backend.refined_layers[0], 2);
  const float weight = rig.backend.refined_with[0] / NumberedExperts::number_of({1, 0});
  EXPECT_GT(weight, 0.5f) << "expert 0, the first of two, and nothing else";
  EXPECT_LT(weight, 1.0f);
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
