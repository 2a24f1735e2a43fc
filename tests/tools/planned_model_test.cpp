#include "tools/planned_model.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "quant/gguf.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "support/test_data.h"
#include "tools/converter.h"
#include "tools/gguf_exporter.h"
#include "tools/inspection.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using quant::DType;
using testing::TempDir;

TEST(PlannedModel, AConfigFileIsEnough) {
  const PlannedModel model =
      open_planned_model(testing::test_data("configs/deepseek-r1.json"), std::nullopt, std::nullopt);
  EXPECT_EQ(model.whole.source.type_name, "F8_E4M3");
  EXPECT_EQ(model.whole.source.layouts.size(), 61u);
  EXPECT_TRUE(model.whole.files().empty());
  EXPECT_NEAR(static_cast<double>(model.whole.shape->resident_bytes()), 19.0e9, 1e9);
}

TEST(PlannedModel, ADirectoryTellsItsOwnFormats) {
  const PlannedModel model = open_planned_model(testing::tiny_r1(), std::nullopt, std::nullopt);
  EXPECT_EQ(model.whole.source.type_name, "F8_E4M3");
  EXPECT_FALSE(model.whole.files().empty());
}

/// Writes a GGUF file's tensors as two parts, as llama.cpp's gguf-split does. Returns the second.
fs::path split_in_two(const fs::path& file, const TempDir& directory) {
  const quant::Gguf gguf = quant::Gguf::open(file);
  const std::string bytes = testing::file_content(file);
  const size_t half = gguf.tensors().size() / 2;
  for (const size_t part : {0u, 1u}) {
    quant::GgufWriter::Metadata metadata;
    if (part == 0) metadata.assign(gguf.metadata().begin(), gguf.metadata().end());
    metadata.emplace_back("split.no", quant::GgufValue::u16(static_cast<uint16_t>(part)));
    metadata.emplace_back("split.count", quant::GgufValue::u16(2));
    metadata.emplace_back("split.tensors.count", quant::GgufValue::i32(static_cast<int32_t>(gguf.tensors().size())));
    const std::vector<quant::TensorInfo> tensors(
        gguf.tensors().begin() + static_cast<std::ptrdiff_t>(part * half),
        part == 0 ? gguf.tensors().begin() + static_cast<std::ptrdiff_t>(half) : gguf.tensors().end());
    quant::GgufWriter writer(directory / fmt::format("parts-{:05}-of-00002.gguf", part + 1), metadata, tensors);
    for (size_t i = 0; i < tensors.size(); ++i) {
      writer.write(i, 0, std::as_bytes(std::span(bytes).subspan(tensors[i].offset, tensors[i].size_bytes)));
    }
    writer.finish();
  }
  return directory / "parts-00002-of-00002.gguf";
}

/// The same small model in every kind of file that `inspect` and `plan` are given.
class KindsOfModel : public ::testing::Test {
 protected:
  KindsOfModel() {
    fs::create_directory(source());
    testing::write_small_model(source());
    GgufExportOptions gguf;
    gguf.source = source();
    gguf.destination = directory_ / "model.gguf";
    GgufExporter(gguf).run({});
    ConvertOptions pack;
    pack.source = source();
    pack.destination = directory_ / "pack";
    Converter(pack).run({});
    split_in_two(gguf.destination, directory_);
  }
  fs::path source() const { return directory_ / "source"; }

  const TempDir directory_;
};

TEST_F(KindsOfModel, SayTheSameOfThemselves) {
  const PlannedModel expected = open_planned_model(source(), std::nullopt, std::nullopt);
  const Inspection first = inspect_model(source(), std::nullopt);
  EXPECT_EQ(expected.whole.source.type_name, "BF16");
  EXPECT_EQ(first.expert_count, 8u);
  struct Kind {
    fs::path path;
    std::string name;
  };
  for (const Kind& kind :
       {Kind{source(), "model directory"}, Kind{directory_ / "pack", "Moraine pack"},
        Kind{directory_ / "model.gguf", "GGUF file"}, Kind{directory_ / "parts-00001-of-00002.gguf", "GGUF file"},
        Kind{directory_ / "parts-00002-of-00002.gguf", "GGUF file"}, Kind{source() / "config.json", "configuration"}}) {
    SCOPED_TRACE(kind.path);
    const bool is_here = kind.name != "configuration";
    const PlannedModel planned = open_planned_model(kind.path, std::nullopt, std::nullopt);
    EXPECT_EQ(planned.whole.source.type_name, "BF16");
    EXPECT_EQ(planned.whole.source.layouts.at(1), expected.whole.source.layouts.at(1));
    EXPECT_EQ(planned.whole.files().empty(), !is_here);
    const Inspection inspection = inspect_model(kind.path, std::nullopt);
    EXPECT_EQ(inspection.kind, kind.name);
    EXPECT_EQ(inspection.is_pack, kind.name == "Moraine pack");
    EXPECT_EQ(inspection.config.num_hidden_layers, 3);
    EXPECT_EQ(inspection.expert_type, "BF16");
    EXPECT_EQ(inspection.expert_count, first.expert_count);
    EXPECT_EQ(inspection.record_bytes, first.record_bytes);
    EXPECT_EQ(inspection.expert_bytes, first.expert_bytes);
    EXPECT_EQ(inspection.kv_bytes_per_token, first.kv_bytes_per_token);
    EXPECT_EQ(inspection.groups.empty(), !is_here);
    EXPECT_EQ(inspection.resident_bytes, planned.whole.shape->resident_bytes());
    // A GGUF keeps the router as F32 and the published model would keep it as BF16, as this one does.
    EXPECT_NEAR(static_cast<double>(inspection.resident_bytes), static_cast<double>(first.resident_bytes),
                kind.name == "GGUF file" ? 4096.0 : 0.0);
    EXPECT_FALSE(inspection_text(inspection, true).empty());
    EXPECT_EQ(inspection_json(inspection, false)["kind"], kind.name);
  }
}

TEST_F(KindsOfModel, AConfigurationIsInspectedInTheTypesAskedFor) {
  const Inspection inspection =
      inspect_model(testing::test_data("configs/deepseek-r1.json"), DType::kQ4_K, DType::kQ8_0);
  EXPECT_EQ(inspection.expert_type, "Q4_K");
  EXPECT_EQ(inspection.expert_count, 58u * 256);
  EXPECT_NEAR(static_cast<double>(inspection.expert_bytes), 58.0 * 256 * 3 * 2048 * 7168 * 4.5 / 8, 1e9);
  EXPECT_EQ(inspection.resident_type, "Q8_0");
  EXPECT_FALSE(inspection.has_mtp);
  // 37 billion weights are active per token, without the embedding: 17 of them resident, 20 in experts.
  EXPECT_NEAR(static_cast<double>(inspection.bytes_per_token), 17e9 * 8.5 / 8 + 20.4e9 * 4.5 / 8, 1.5e9);
  const std::string text = inspection_text(inspection, true);
  EXPECT_EQ(text.find("stored tensors"), std::string::npos) << text;
  const Inspection published = inspect_model(testing::test_data("configs/deepseek-r1.json"), std::nullopt);
  EXPECT_EQ(published.expert_type, "F8_E4M3");
  EXPECT_EQ(published.resident_type, "as published");
}

}  // namespace
}  // namespace moraine::tools
