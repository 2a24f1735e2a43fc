#include "tools/eval_kl.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "quant/json.h"
#include "runtime/model_text.h"
#include "support/captured_console.h"
#include "support/expect_error.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "support/test_data.h"
#include "tools/program.h"

namespace moraine::tools {
namespace {

using testing::CapturedConsole;
using testing::TempDir;

std::vector<float> logits_of(std::initializer_list<double> probabilities, double shift = 0.0) {
  std::vector<float> logits;
  for (const double probability : probabilities) logits.push_back(static_cast<float>(std::log(probability) + shift));
  return logits;
}

TEST(KlDivergence, IsTheDefinition) {
  const auto p = logits_of({0.5, 0.5}), q = logits_of({0.25, 0.75});
  EXPECT_NEAR(kl_divergence(p, q), 0.5 * std::log(2.0) + 0.5 * std::log(2.0 / 3.0), 1e-7);
  EXPECT_NEAR(kl_divergence(q, p), 0.25 * std::log(0.5) + 0.75 * std::log(1.5), 1e-7);
  EXPECT_NEAR(kl_divergence(logits_of({0.5, 0.5}, 80.0), logits_of({0.25, 0.75}, -90.0)), kl_divergence(p, q), 1e-5)
      << "only differences of logits count";
  EXPECT_EQ(kl_divergence(q, q), 0.0);
}

TEST(KlDivergence, DoesNotHideNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> good = {0.0f, 1.0f};
  EXPECT_TRUE(std::isnan(kl_divergence(good, std::vector<float>{nan, 1.0f})));
  EXPECT_TRUE(std::isnan(kl_divergence(std::vector<float>{0.0f, nan}, good)));
}

TEST(KlMeter, KeepsMeanWorstAndAgreement) {
  KlMeter meter;
  EXPECT_EQ(meter.mean_kl(), 0.0);
  const auto p = logits_of({0.4, 0.6}), same_top = logits_of({0.1, 0.9}), other_top = logits_of({0.7, 0.3});
  meter.add(p, p);
  meter.add(p, other_top);
  meter.add(p, same_top);
  meter.add(p, p);
  EXPECT_EQ(meter.positions(), 4);
  EXPECT_EQ(meter.top1_agreement(), 0.75);
  EXPECT_DOUBLE_EQ(meter.mean_kl(), (kl_divergence(p, other_top) + kl_divergence(p, same_top)) / 4);
  EXPECT_EQ(meter.worst_kl(), kl_divergence(p, same_top));
  EXPECT_EQ(meter.worst_position(), 2);
}

class EvalKl : public ::testing::Test {
 protected:
  EvalKl() {
    for (const char* name : {"a", "b"}) {
      std::filesystem::create_directory(directory_ / name);
      testing::write_small_model(directory_ / name, /*other_weights=*/std::string(name) == "b");
    }
    options_.engine.model = directory_ / "a";
    options_.engine.precise = true;
    options_.reference.model = directory_ / "a";
    options_.reference.precise = true;
    options_.file = directory_.write("text.txt", "the cat and the other cat sat there all day");
    options_.context = 64;
    options_.json = true;
  }

  quant::Json run() {
    CapturedConsole console;
    EXPECT_EQ(eval_kl(options_, console.console()), 0);
    return quant::parse_json(console.out(), "stdout");
  }

  const TempDir directory_;
  EvalKlOptions options_;
};

TEST_F(EvalKl, AModelEqualsItself) {
  const quant::Json json = run();
  EXPECT_GT(json["positions"].get<int64_t>(), 10);
  EXPECT_EQ(json["mean_kl"], 0.0);
  EXPECT_EQ(json["worst_kl"], 0.0);
  EXPECT_EQ(json["top1_agreement"], 1.0);
  EXPECT_EQ(json["model"], "a");
  EXPECT_EQ(json["reference"], "a");
}

TEST_F(EvalKl, SeesOneOtherBitAndOtherFormats) {
  options_.engine.model = directory_ / "b";
  const double other_bit = run()["mean_kl"].get<double>();
  EXPECT_GT(other_bit, 0.0);
  options_.engine.model = directory_ / "a";
  options_.engine.experts = quant::DType::kQ8_0;
  const quant::Json eight = run();
  EXPECT_EQ(eight["experts"], "Q8_0");
  EXPECT_EQ(eight["reference_experts"], "BF16");
  options_.engine.experts = quant::DType::kQ4_0;
  const quant::Json four = run();
  EXPECT_GT(eight["mean_kl"].get<double>(), 0.0);
  EXPECT_GT(four["mean_kl"].get<double>(), 10 * eight["mean_kl"].get<double>());
  EXPECT_GE(four["worst_kl"].get<double>(), four["mean_kl"].get<double>());
}

TEST_F(EvalKl, CutsTheTextIntoWindows) {
  const auto config = runtime::ModelConfig::from_directory(directory_ / "a");
  const auto text = runtime::ModelText::from_directory(directory_ / "a", config);
  const int64_t bos = text.tokenizer.special().bos ? 1 : 0;
  options_.max_tokens = 10;
  EXPECT_EQ(run()["positions"], 10 + bos);
  options_.context = 4;
  const int64_t text_tokens = 4 - bos;
  EXPECT_EQ(run()["positions"], 10 + bos * ((10 + text_tokens - 1) / text_tokens));
  options_.context = 1;
  EXPECT_EQ(run()["positions"], 10);
}

TEST_F(EvalKl, RefusesWhatCannotBeCompared) {
  CapturedConsole console;
  const auto refused = [&](quant::ErrorKind kind, const char* part) {
    testing::expect_error(kind, {part}, [&] { (void)eval_kl(options_, console.console()); });
  };
  options_.context = 65;
  refused(quant::ErrorKind::kUsage, "at most 64");
  options_.context = 32;
  options_.file = directory_.write("empty.txt", "");
  refused(quant::ErrorKind::kUsage, "empty");
  options_.file = directory_ / "missing.txt";
  refused(quant::ErrorKind::kBadFile, "missing.txt");
  options_.reference.model = testing::tiny_r1();
  refused(quant::ErrorKind::kUsage, "vocabularies");
}

TEST_F(EvalKl, TheCommandSetsBothModels) {
  const std::string model = (directory_ / "b").string(), reference = (directory_ / "a").string();
  const std::string text = options_.file.string();
  std::vector<const char*> args = {"moraine",   "eval",         "kl", model.c_str(), text.c_str(),
                                   "--precise", "--context",    "32", "--json",      "--reference-experts",
                                   "Q8_0",      "--max-tokens", "20"};
  CapturedConsole without;
  EXPECT_EQ(run_program(static_cast<int>(args.size()), args.data(), without.console()), 2) << "no reference";
  args.insert(args.end(), {"--reference", reference.c_str()});
  CapturedConsole console;
  ASSERT_EQ(run_program(static_cast<int>(args.size()), args.data(), console.console()), 0) << console.err();
  const quant::Json json = quant::parse_json(console.out(), "stdout");
  EXPECT_EQ(json["model"], "b");
  EXPECT_EQ(json["experts"], "BF16");
  EXPECT_EQ(json["reference"], "a");
  EXPECT_EQ(json["reference_experts"], "Q8_0");
}

}  // namespace
}  // namespace moraine::tools
