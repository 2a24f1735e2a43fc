#include "runtime/generator.h"

#include <gtest/gtest.h>

#include "quant/error.h"
#include "runtime/engine.h"
#include "support/expect_error.h"
#include "support/fake_backend.h"
#include "support/numbered_experts.h"
#include "support/test_data.h"

namespace moraine::runtime {
namespace {

using testing::FakeBackend;
using testing::NumberedExperts;
using testing::TempDir;

constexpr GenerateOptions kGreedy{.max_tokens = 50, .sampling = {.temperature = 0.0}};

/// An engine with the embedded model's text side and a backend that says a script.
struct Rig {
  Rig() {
    ModelConfig config = ModelConfig::from_directory(testing::tiny_r1());
    config.num_hidden_layers = 2;
    config.max_position_embeddings = 64;
    auto model = std::make_shared<Model>();
    model->config = config;
    model->layers.resize(2);
    for (LayerWeights& layer : model->layers) layer.e_score_correction_bias.assign(32, 0.0f);
    backend = std::make_shared<FakeBackend>(config);
    auto source = std::make_shared<NumberedExperts>(dir, 1, 2, 32);
    EngineParts parts{.text = ModelText::from_directory(testing::tiny_r1(), config),
                      .model = model,
                      .experts = {source, std::vector<quant::ExpertLayout>(2), "test"},
                      .store = std::make_unique<offload::ExpertStore>(
                          source, offload::StoreOptions{.budget_bytes = 32 * NumberedExperts::kRecordBytes}, 4),
                      .dense = backend,
                      .expert_backend = backend};
    engine = std::make_unique<Engine>(std::move(parts));
  }

  /// After `prompt_size` tokens the model says `script`, token by token, then its last token for ever.
  void says(size_t prompt_size, std::vector<int32_t> script) {
    backend->next_token = [prompt_size, script = std::move(script)](const std::vector<int32_t>& tokens) {
      return script[std::min(tokens.size() - prompt_size, script.size() - 1)];
    };
  }

  std::vector<int32_t> ids(std::string_view text) const {
    return engine->tokenizer().encode(text, AddedTokens::kParse);
  }

  TempDir dir;
  std::shared_ptr<FakeBackend> backend;
  std::unique_ptr<Engine> engine;
};

TEST(Generator, TellsThinkingFromAnswerAndStopsAtTheEndToken) {
  Rig rig;
  const std::vector<Message> messages{{"user", "What is io_uring?"}};
  const std::vector<int32_t> prompt = rig.engine->chat_prompt(messages);
  rig.says(prompt.size(), rig.ids("two steps\n</think>\n\nAn answer.<｜end▁of▁sentence｜>"));
  Session session = rig.engine->new_session();
  std::string thinking, answer;
  const GenerateResult result =
      generate(*rig.engine, session, prompt, kGreedy,
               {.on_token = [&](const TokenEvent& event) { (event.thinking ? thinking : answer) += event.text; }});
  EXPECT_EQ(result.finish, FinishReason::kStop);
  EXPECT_EQ(result.thinking, "two steps\n");
  EXPECT_EQ(result.answer, "\n\nAn answer.");
  EXPECT_EQ(thinking, result.thinking);
  EXPECT_EQ(answer, result.answer);
  EXPECT_EQ(result.ids.back(), 1);
  EXPECT_EQ(result.stats.prompt_tokens, static_cast<int64_t>(prompt.size()));
  EXPECT_EQ(result.stats.output_tokens, static_cast<int64_t>(result.ids.size()));
}

TEST(Generator, PrefillsInChunksWhoseBordersAreAbsolute) {
  Rig rig;
  std::vector<int32_t> prompt(10, 40);
  rig.says(10, {1});
  Session session = rig.engine->new_session();
  generate(*rig.engine, session, prompt, kGreedy);
  EXPECT_EQ(rig.backend->step_rows, (std::vector<int32_t>{4, 4, 2}));
  rig.backend->step_rows.clear();
  rig.backend->step_positions.clear();
  prompt[6] = 41;  // six tokens stay
  const GenerateResult again = generate(*rig.engine, session, prompt, kGreedy);
  EXPECT_EQ(again.stats.reused_tokens, 6);
  EXPECT_EQ(rig.backend->step_rows, (std::vector<int32_t>{2, 2}));
  EXPECT_EQ(rig.backend->step_positions, (std::vector<int64_t>{6, 8}));
}

TEST(Generator, StopsAtMaxTokensAndAtTheContextsEnd) {
  Rig rig;
  const std::vector<int32_t> prompt(10, 40);
  rig.says(10, {50});
  Session session = rig.engine->new_session();
  GenerateOptions options = kGreedy;
  options.max_tokens = 3;
  GenerateResult result = generate(*rig.engine, session, prompt, options);
  EXPECT_EQ(result.finish, FinishReason::kLength);
  EXPECT_EQ(result.ids.size(), 3u);
  options.max_tokens = 1000;
  result = generate(*rig.engine, session, prompt, options);
  EXPECT_EQ(result.finish, FinishReason::kContext);
  EXPECT_EQ(session.tokens().size(), 64u);
  options.max_tokens = 0;
  EXPECT_TRUE(generate(*rig.engine, session, prompt, options).ids.empty());
}

TEST(Generator, ACancelledAnswerKeepsTheSession) {
  Rig rig;
  const std::vector<int32_t> prompt(10, 40);
  rig.says(10, {50});
  Session session = rig.engine->new_session();
  int tokens = 0;
  const GenerateResult result =
      generate(*rig.engine, session, prompt, kGreedy,
               {.on_token = [&](const TokenEvent&) { ++tokens; }, .stop = [&] { return tokens >= 4; }});
  EXPECT_EQ(result.finish, FinishReason::kCancelled);
  EXPECT_EQ(result.ids.size(), 4u);
  EXPECT_EQ(session.cache().token_count(), static_cast<int64_t>(session.tokens().size()));
  EXPECT_EQ(session.tokens().size(), 13u) << "prompt and the tokens that went through the model";
}

TEST(Generator, RefusesPromptsItCannotTake) {
  Rig rig;
  Session session = rig.engine->new_session();
  const auto run = [&](std::vector<int32_t> prompt) { generate(*rig.engine, session, prompt, kGreedy); };
  testing::expect_error(quant::ErrorKind::kUsage, {"no tokens"}, [&] { run({}); });
  testing::expect_error(quant::ErrorKind::kUsage, {"64 tokens", "context holds 64"},
                        [&] { run(std::vector<int32_t>(64, 40)); });
  testing::expect_error(quant::ErrorKind::kUsage, {"token id 768"}, [&] { run({768}); });
  testing::expect_error(quant::ErrorKind::kUsage, {"token id -1"}, [&] { run({-1}); });
}

TEST(Generator, HalfACharacterIsHeldBack) {
  Rig rig;
  const std::vector<int32_t> prompt(10, 40);
  std::vector<int32_t> script = rig.ids("é€");
  ASSERT_GT(script.size(), 2u) << "several byte tokens per character";
  script.push_back(1);
  rig.says(10, script);
  Session session = rig.engine->new_session();
  std::vector<std::string> pieces;
  generate(*rig.engine, session, prompt, kGreedy, {.on_token = [&](const TokenEvent& event) {
    if (!event.text.empty()) pieces.emplace_back(event.text);
  }});
  EXPECT_EQ(pieces, (std::vector<std::string>{"é", "€"}));
}

}  // namespace
}  // namespace moraine::runtime
