#include "runtime/model_source.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/gguf_model.h"
#include "support/temp_dir.h"
#include "support/test_data.h"

namespace moraine::runtime {
namespace {

using testing::expect_error;
using testing::TempDir;

TEST(ModelSource, IsADirectory) {
  const auto source = ModelSource::open(testing::tiny_r1());
  EXPECT_EQ(source->kind(), "model directory");
  EXPECT_FALSE(source->is_pack());
  EXPECT_EQ(source->text("config.json"), testing::file_content(testing::tiny_r1() / "config.json"));
  EXPECT_EQ(source->text_file("config.json"), testing::tiny_r1() / "config.json");
  EXPECT_EQ(source->text("chat_template.jinja"), std::nullopt);
  EXPECT_EQ(source->config().num_hidden_layers, 8);
  EXPECT_NE(source->checkpoint().find("lm_head.weight"), nullptr);
}

TEST(ModelSource, IsAGgufFile) {
  const TempDir dir;
  testing::GgufBytes bytes = testing::r1_metadata();
  bytes.tensor("output.weight", {4}, 0, 0).bytes(std::string(16, 'x'));
  const auto file = dir.write("r1.gguf", bytes.file());
  const auto source = ModelSource::open(file);
  EXPECT_EQ(source->kind(), "GGUF file");
  EXPECT_EQ(source->config().hidden_size, 7168);
  EXPECT_EQ(source->text_file("config.json"), file);
  EXPECT_EQ(source->text("README.md"), std::nullopt);
  EXPECT_NE(source->checkpoint().find("lm_head.weight"), nullptr);
  EXPECT_EQ(source->checkpoint().directory(), file);
}

TEST(ModelSource, IsAConfigurationAlone) {
  const auto json = testing::test_data("configs/deepseek-r1.json");
  const TempDir dir;
  dir.write("config.json", testing::file_content(json));
  dir.write("tokenizer.json", "{}");
  for (const auto& path : {json, dir.path()}) {
    const auto source = ModelSource::open(path);
    EXPECT_EQ(source->kind(), "configuration");
    EXPECT_FALSE(source->has_weights());
    EXPECT_FALSE(source->is_pack());
    EXPECT_EQ(source->text("config.json"), testing::file_content(json));
    EXPECT_EQ(source->config().num_hidden_layers, 61);
    expect_error(quant::ErrorKind::kBadFile, {"weights"}, [&] { (void)source->checkpoint(); });
  }
  EXPECT_EQ(ModelSource::open(json)->text("tokenizer.json"), std::nullopt);
  EXPECT_TRUE(ModelSource::open(testing::tiny_r1())->has_weights());
}

TEST(ModelSource, IsNoConfigurationWhereWeightsAre) {
  // What is wrong with the weights is then for Checkpoint to say.
  for (const char* name : {"model.safetensors.index.json", "model-00001-of-00002.safetensors", "pytorch_model.bin"}) {
    const TempDir dir;
    dir.write("config.json", "{}");
    dir.write(name, "");
    EXPECT_TRUE(ModelSource::open(dir.path())->has_weights()) << name;
  }
}

TEST(ModelSource, SaysWhatToNameInADirectoryOfGgufFiles) {
  const TempDir dir;
  dir.write("b.gguf", "");
  dir.write("a.gguf", "");
  expect_error(quant::ErrorKind::kBadFile, {"GGUF", "name the file", "a.gguf"}, [&] { ModelSource::open(dir.path()); });
}

TEST(ModelSource, RefusesAnyOtherFile) {
  const TempDir dir;
  expect_error(quant::ErrorKind::kBadFile, {"model.safetensors", "not a GGUF file"},
               [&] { ModelSource::open(dir.write("model.safetensors", "12345678{}")); });
  expect_error(quant::ErrorKind::kBadFile, {"absent"}, [&] { (void)ModelSource::open(dir / "absent")->config(); });
}

}  // namespace
}  // namespace moraine::runtime
