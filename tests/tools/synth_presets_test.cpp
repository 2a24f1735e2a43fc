#include "tools/synth_presets.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/test_data.h"

namespace moraine::tools {
namespace {

/// Every field of the preset that changes a shape or a number is the published model's.
void expect_config_of(const char* preset, const std::filesystem::path& published_file) {
  const SynthPreset& wanted = find_synth_preset(preset);
  // Without quant::Json's order of fields, which means nothing here.
  const auto config = nlohmann::json::parse(wanted.config_json);
  const auto published = nlohmann::json::parse(quant::read_text(published_file, 1 << 20));
  for (const auto& [name, value] : config.items()) {
    if (name == "num_nextn_predict_layers") continue;  // no MTP layer is made
    EXPECT_EQ(value, published.at(name)) << name;
  }
  EXPECT_EQ(wanted.dense_layers, published.at("first_k_dense_replace"));
  EXPECT_EQ(wanted.dense_layers + wanted.moe_layers, published.at("num_hidden_layers"));
}

TEST(SynthPresets, HaveThePublishedShapes) {
  expect_config_of("r1-671b", testing::test_data("configs/deepseek-r1.json"));
  expect_config_of("tiny", testing::tiny_r1() / "config.json");
  EXPECT_EQ(synth_presets().size(), 2u);
}

TEST(SynthPresets, AnUnknownNameIsRefusedWithTheKnownOnes) {
  testing::expect_error(quant::ErrorKind::kUsage, {"v2-lite", "r1-671b or tiny"}, [] { find_synth_preset("v2-lite"); });
}

}  // namespace
}  // namespace moraine::tools
