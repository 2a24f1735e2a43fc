#include "tools/synthesizer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/generator.h"
#include "runtime/router.h"
#include "runtime/weight_loader.h"
#include "support/captured_console.h"
#include "support/expect_error.h"
#include "support/random_matrix.h"
#include "support/temp_dir.h"
#include "support/test_data.h"
#include "tools/engine_setup.h"
#include "tools/verifier.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using quant::DType;
using testing::TempDir;

/// A crash at some point of the work.
struct Crash {};

class SynthesizerTest : public ::testing::Test {
 protected:
  SynthOptions options(const char* name) const {
    SynthOptions options;
    options.destination = directory_ / name;
    options.tokenizer_source = testing::tiny_r1();
    options.preset = "tiny";
    options.dense_layers = 1;
    options.moe_layers = 2;
    options.threads = 2;
    return options;
  }

  static std::map<std::string, std::string> content(const fs::path& directory) {
    std::map<std::string, std::string> files;
    for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
      files[entry.path().filename().string()] = testing::file_content(entry.path());
    }
    return files;
  }

  static void expect_clean(const fs::path& pack) {
    const VerifyReport report = verify_model(pack, {});
    EXPECT_EQ(report.fault_count, 0u) << (report.faults.empty() ? "" : report.faults[0]);
  }

  TempDir directory_;
};

TEST_F(SynthesizerTest, WritesAPackThatVerifiesAndGenerates) {
  Synthesizer synthesizer(options("pack"));
  uint64_t last_bytes = 0;
  synthesizer.run([&](uint64_t done_bytes, uint64_t total_bytes, const std::string&) {
    EXPECT_GT(done_bytes + (done_bytes == last_bytes ? 1 : 0), last_bytes);
    EXPECT_LE(done_bytes, total_bytes);
    last_bytes = done_bytes;
  });
  EXPECT_EQ(last_bytes, synthesizer.total_bytes());
  EXPECT_TRUE(synthesizer.already_done());
  expect_clean(directory_ / "pack");

  testing::CapturedConsole console;
  EngineOptions engine_options;
  engine_options.model = directory_ / "pack";
  const auto engine = open_engine(engine_options, console.console());
  runtime::Session session = engine->new_session();
  const std::vector<int32_t> prompt = engine->raw_prompt("random weights");
  runtime::GenerateOptions wanted;
  wanted.max_tokens = 8;
  wanted.sampling.temperature = 0.0;
  EXPECT_FALSE(runtime::generate(*engine, session, prompt, wanted, {}).ids.empty());
}

TEST_F(SynthesizerTest, EveryTypeMakesAPackWhoseNumbersAreUsable) {
  for (const DType experts : {DType::kQ4_K, DType::kQ4_0, DType::kQ8_0, DType::kBF16, DType::kF8E4M3}) {
    for (const DType resident : {DType::kQ8_0, DType::kBF16, DType::kF8E4M3}) {
      const std::string name = fmt::format("{}-{}", quant::dtype_name(experts), quant::dtype_name(resident));
      SCOPED_TRACE(name);
      SynthOptions wanted = options(name.c_str());
      wanted.experts = experts;
      wanted.resident = resident;
      wanted.moe_layers = 1;
      Synthesizer(wanted).run({});
      expect_clean(wanted.destination);
      const auto config = runtime::ModelConfig::from_directory(wanted.destination);
      // Loading looks at every number of the resident part.
      const auto model = runtime::load_model(quant::Checkpoint::open(wanted.destination), config);
      EXPECT_EQ(model.layers[0].o_proj.view.type, resident);
      EXPECT_EQ(model.embed_tokens.view.type, DType::kBF16);
      EXPECT_EQ(config.fp8_weights, resident == DType::kF8E4M3);
      fs::remove_all(wanted.destination);
    }
  }
}

/// Root mean square of the residual stream after every layer.
struct HiddenSizes final : runtime::StepObserver {
  std::vector<double> rms;  // [num_hidden_layers + 1]

  bool wants_hidden() const override { return true; }
  void hidden(int, std::span<const float> values) override {
    double squares = 0.0;
    for (const float value : values) squares += static_cast<double>(value) * value;
    rms.push_back(std::sqrt(squares / static_cast<double>(values.size())));
  }
};

TEST_F(SynthesizerTest, ActivationsStayOfOneSizeThroughManyLayers) {
  SynthOptions wanted = options("deep");
  wanted.dense_layers = 3;
  wanted.moe_layers = 58;
  Synthesizer(wanted).run({});
  testing::CapturedConsole console;
  EngineOptions engine_options;
  engine_options.model = wanted.destination;
  const auto engine = open_engine(engine_options, console.console());
  runtime::Session session = engine->new_session();
  const std::vector<int32_t> ids = {17, 300, 41, 712};
  const runtime::SequenceSlice slice{&session.cache(), 0, 0, static_cast<int32_t>(ids.size())};
  const std::vector<int32_t> rows = {3};
  std::vector<float> logits(static_cast<size_t>(engine->config().vocab_size));
  HiddenSizes sizes;
  engine->transformer().step({ids, std::span(&slice, 1)}, rows, logits, {}, &sizes);
  ASSERT_EQ(sizes.rms.size(), 62u);
  // Every layer adds something of the same size: a sum of 61 such terms, not a product.
  EXPECT_NEAR(sizes.rms.front(), 1.0, 0.2);
  EXPECT_LT(sizes.rms.back(), 61.0);
  EXPECT_TRUE(std::ranges::all_of(logits, [](float logit) { return std::abs(logit) < 8.0f; }));
}

TEST_F(SynthesizerTest, ExpertsAreChosenAboutEvenly) {
  SynthOptions wanted = options("pack");
  Synthesizer(wanted).run({});
  const auto config = runtime::ModelConfig::from_directory(wanted.destination);
  const auto model = runtime::load_model(quant::Checkpoint::open(wanted.destination), config);
  const quant::PackedView& gate = model.layers[1].gate.view;
  std::vector<float> rows(static_cast<size_t>(gate.rows * gate.cols));
  quant::dequantize_packed(gate, 0, gate.rows, rows);
  const runtime::Router router(config);
  std::vector<int> counts(static_cast<size_t>(gate.rows));
  testing::RandomValues random(11);
  constexpr int kTokens = 2000;
  for (int token = 0; token < kTokens; ++token) {
    const std::vector<float> x = testing::random_values(gate.cols, 1.0, random);  // as an RMSNorm leaves it
    std::vector<float> logits(counts.size());
    for (size_t e = 0; e < logits.size(); ++e) {
      for (size_t k = 0; k < x.size(); ++k) logits[e] += rows[e * x.size() + k] * x[k];
      ASSERT_LT(std::abs(logits[e]), 8.0f);
    }
    std::vector<runtime::RoutedExpert> chosen(static_cast<size_t>(config.num_experts_per_tok));
    router.route(logits, model.layers[1].e_score_correction_bias, chosen);
    for (const runtime::RoutedExpert& expert : chosen) ++counts[static_cast<size_t>(expert.expert)];
  }
  const double mean = kTokens * static_cast<double>(config.num_experts_per_tok) / static_cast<double>(counts.size());
  const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
  EXPECT_GT(*least, 0.6 * mean);
  EXPECT_LT(*most, 1.6 * mean);
}

TEST_F(SynthesizerTest, TheSameSeedGivesTheSameBytes) {
  SynthOptions wanted = options("one");
  Synthesizer(wanted).run({});
  const auto one = content(wanted.destination);
  wanted.destination = directory_ / "two";
  wanted.threads = 1;
  Synthesizer(wanted).run({});
  EXPECT_EQ(content(wanted.destination), one);
  wanted.destination = directory_ / "other";
  wanted.seed = 1;
  Synthesizer(wanted).run({});
  const auto other = content(wanted.destination);
  EXPECT_NE(other.at("experts-00001.bin"), one.at("experts-00001.bin"));
  EXPECT_NE(other.at("model.safetensors"), one.at("model.safetensors"));
  EXPECT_EQ(other.at("config.json"), one.at("config.json"));
}

TEST_F(SynthesizerTest, LayersAndExpertsDiffer) {
  SynthOptions wanted = options("pack");
  Synthesizer(wanted).run({});
  const std::string first = testing::file_content(wanted.destination / "experts-00001.bin");
  EXPECT_NE(first, testing::file_content(wanted.destination / "experts-00002.bin"));
  EXPECT_NE(first.substr(0, 4096), first.substr(first.size() / 32, 4096));
}

TEST_F(SynthesizerTest, InterruptedAnywhereItGoesOnAndTheBytesAreTheSame) {
  SynthOptions wanted = options("whole");
  wanted.shard_bytes = 300'000;
  Synthesizer(wanted).run({});
  const auto expected = content(wanted.destination);

  wanted.destination = directory_ / "pieces";
  int crashes = 0;
  for (int steps = 1;; steps += 9) {
    Synthesizer synthesizer(wanted);
    EXPECT_EQ(synthesizer.resumes(), crashes > 0);
    try {
      int step = 0;
      synthesizer.run([&](uint64_t, uint64_t, const std::string&) {
        if (++step == steps) throw Crash();
      });
      break;
    } catch (const Crash&) {
      ++crashes;
    }
  }
  EXPECT_GT(crashes, 5);
  EXPECT_EQ(content(wanted.destination), expected);
}

TEST_F(SynthesizerTest, AFinishedPackIsRecognisedAndAnotherNeverOverwritten) {
  SynthOptions wanted = options("pack");
  Synthesizer(wanted).run({});
  const auto before = content(wanted.destination);
  EXPECT_TRUE(Synthesizer(wanted).already_done());
  wanted.seed = 5;
  testing::expect_error(quant::ErrorKind::kUsage, {"other options", "pack"}, [&] { Synthesizer{wanted}; });
  EXPECT_EQ(content(wanted.destination), before);
}

TEST_F(SynthesizerTest, ImpossibleWishesAreRefusedBeforeAnythingIsWritten) {
  const auto refused = [&](quant::ErrorKind kind, std::initializer_list<std::string_view> parts, auto change) {
    SynthOptions wanted = options("pack");
    change(wanted);
    testing::expect_error(kind, parts, [&] { Synthesizer{wanted}; });
    EXPECT_FALSE(fs::exists(wanted.destination));
  };
  refused(quant::ErrorKind::kUsage, {"no such preset", "r2"}, [](SynthOptions& o) { o.preset = "r2"; });
  refused(quant::ErrorKind::kUsage, {"number of layers"}, [](SynthOptions& o) { o.moe_layers = 0; });
  refused(quant::ErrorKind::kUsage, {"number of layers"}, [](SynthOptions& o) { o.dense_layers = 4096; });
  refused(quant::ErrorKind::kBadFile, {"more tokens", "100"}, [](SynthOptions& o) { o.vocab_size = 100; });
  refused(quant::ErrorKind::kBadFile, {}, [](SynthOptions& o) { o.tokenizer_source = "/nowhere"; });
  refused(quant::ErrorKind::kNotEnough, {"not enough room", "1000 B"},
          [](SynthOptions& o) { o.free_bytes = [](const fs::path&) { return uint64_t{1000}; }; });
}

TEST_F(SynthesizerTest, TheVocabularyMayBeLargerThanTheTokenizers) {
  SynthOptions wanted = options("pack");
  wanted.vocab_size = 1000;
  Synthesizer(wanted).run({});
  EXPECT_EQ(runtime::ModelConfig::from_directory(wanted.destination).vocab_size, 1000);
  expect_clean(wanted.destination);
}

TEST_F(SynthesizerTest, R1LayersHaveTheirPublishedSize) {
  SynthOptions wanted = options("r1");
  wanted.preset = "r1-671b";
  wanted.free_bytes = [](const fs::path&) { return uint64_t{1} << 60; };
  const uint64_t two_layers_bytes = Synthesizer(wanted).total_bytes();
  wanted.moe_layers = 3;
  // An expert is 44.04 M weights of 4.5 bits; attention, shared expert and the rest of a layer are some 231 M of 8.5.
  const double layer_gb = static_cast<double>(Synthesizer(wanted).total_bytes() - two_layers_bytes) / 1e9;
  EXPECT_NEAR(layer_gb, 256 * 44.04e-3 * 4.5 / 8 + 0.2312 * 8.5 / 8, 0.01);
}

}  // namespace
}  // namespace moraine::tools
