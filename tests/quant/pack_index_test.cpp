#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "quant/expert_pack.h"
#include "quant/json.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::quant {
namespace {

constexpr const char* kName = PackIndex::kFileName;

PackIndex example() {
  PackIndex index;
  index.wanted_type = "Q4_K";
  index.layers = {{1, "experts-00001.bin", ExpertLayout::make(DType::kQ4_K, 256, 128), {1, 0xfedcba9876543210, 3}},
                  {4, "experts-00004.bin", ExpertLayout::make(DType::kBF16, 256, 128), {0}}};
  index.file_checksums = {{"config.json", 5}, {"tokenizer.json", 0xffffffffffffffff}};
  index.tensor_checksums = {{"model.norm.weight", 7}};
  return index;
}

const std::string& example_text() {
  static const std::string text = [] {
    const testing::TempDir directory;
    example().write(directory.path());
    return testing::file_content(directory / kName);
  }();
  return text;
}

void write_zeros(const std::filesystem::path& file, uint64_t bytes) {
  std::ofstream out(file, std::ios::binary);
  out.close();
  std::filesystem::resize_file(file, bytes);
}

/// Parses the example after `change` and expects a refusal that mentions `parts`.
void expect_refused(std::initializer_list<std::string_view> parts, const std::function<void(Json&)>& change) {
  Json json = Json::parse(example_text());
  change(json);
  testing::expect_error(ErrorKind::kBadFile, parts, [&] { PackIndex::parse(json.dump(), "some/index.json"); });
}

TEST(PackIndex, ReadsWhatItWrote) {
  const testing::TempDir directory;
  EXPECT_FALSE(PackIndex::present(directory.path()));
  const PackIndex wanted = example();
  wanted.write(directory.path());
  for (const PackedLayer& layer : wanted.layers) {
    write_zeros(directory / layer.file, layer.checksums.size() * layer.layout.record_bytes);
  }
  EXPECT_TRUE(PackIndex::present(directory.path()));
  const PackIndex got = PackIndex::read(directory.path());
  EXPECT_EQ(got.wanted_type, wanted.wanted_type);
  EXPECT_EQ(got.file_checksums, wanted.file_checksums);
  EXPECT_EQ(got.tensor_checksums, wanted.tensor_checksums);
  ASSERT_EQ(got.layers.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(got.layers[i].layer, wanted.layers[i].layer);
    EXPECT_EQ(got.layers[i].file, wanted.layers[i].file);
    EXPECT_EQ(got.layers[i].layout, wanted.layers[i].layout);
    EXPECT_EQ(got.layers[i].checksums, wanted.layers[i].checksums);
  }
}

TEST(PackIndex, ChecksTheSizeOfEveryExpertFile) {
  const testing::TempDir directory;
  const PackIndex index = example();
  index.write(directory.path());
  const uint64_t record = index.layers[0].layout.record_bytes;
  write_zeros(directory / "experts-00001.bin", 3 * record);
  testing::expect_error(ErrorKind::kBadFile, {"experts-00004.bin"}, [&] { PackIndex::read(directory.path()); });
  write_zeros(directory / "experts-00004.bin", index.layers[1].layout.record_bytes);
  EXPECT_NO_THROW(PackIndex::read(directory.path()));
  write_zeros(directory / "experts-00001.bin", 3 * record - 1);
  testing::expect_error(ErrorKind::kBadFile,
                        {"experts-00001.bin", "truncated", std::to_string(3 * record), std::to_string(3 * record - 1)},
                        [&] { PackIndex::read(directory.path()); });
  write_zeros(directory / "experts-00001.bin", 3 * record + 1);
  testing::expect_error(ErrorKind::kBadFile, {"too long"}, [&] { PackIndex::read(directory.path()); });
}

TEST(PackIndex, SaysWhatToDoWhenThereIsNone) {
  const testing::TempDir directory;
  testing::expect_error(ErrorKind::kBadFile, {kName, "resumes"}, [&] { PackIndex::read(directory.path()); });
}

TEST(PackIndex, WritingRemovesTheJournals) {
  const testing::TempDir directory;
  directory.write("experts-00001.journal", "x");
  directory.write("experts-00002.journal", "another layer's");
  example().write(directory.path());
  EXPECT_FALSE(std::filesystem::exists(directory / "experts-00001.journal"));
  EXPECT_TRUE(std::filesystem::exists(directory / "experts-00002.journal"));
}

TEST(PackIndex, NeverWritesWhatItWouldRefuse) {
  const testing::TempDir directory;
  PackIndex index = example();
  std::swap(index.layers[0], index.layers[1]);
  testing::expect_error(ErrorKind::kBadFile, {"layers[1].layer"}, [&] { index.write(directory.path()); });
  EXPECT_FALSE(PackIndex::present(directory.path()));
}

TEST(PackIndex, RefusesOtherFormatsAndNewerVersions) {
  expect_refused({"some/index.json", "format", "not a Moraine pack"}, [](Json& json) { json["format"] = "zip"; });
  expect_refused({"format", "nothing"}, [](Json& json) { json.erase("format"); });
  expect_refused({"made by a newer Moraine", "expected 1, got 2"}, [](Json& json) { json["version"] = 2; });
  expect_refused({"made by a newer Moraine"}, [](Json& json) { json["version"] = int64_t{1} << 40; });
  for (const Json& bad : {Json(0), Json(-1), Json("1"), Json(1.5), Json(nullptr), Json(~uint64_t{0})}) {
    expect_refused({"version"}, [&](Json& json) { json["version"] = bad; });
  }
}

TEST(PackIndex, RefusesWrongTypesOfEveryField) {
  for (const char* key : {"format", "version", "experts", "layers", "files", "tensors"}) {
    for (const Json& bad : {Json(true), Json(1.5), Json(nullptr), Json({1, "a"})}) {
      expect_refused({key}, [&](Json& json) { json[key] = bad; });
    }
  }
  for (const char* key : {"layer", "file", "record_bytes", "gate", "up", "down", "checksums"}) {
    for (const Json& bad : {Json(true), Json(1.5), Json(nullptr), Json(Json::object())}) {
      expect_refused({"layers[1]", key}, [&](Json& json) { json["layers"][1][key] = bad; });
    }
    expect_refused({"layers[1]", key, "nothing"}, [&](Json& json) { json["layers"][1].erase(key); });
  }
  expect_refused({"layers[0]", "object"}, [](Json& json) { json["layers"][0] = 3; });
}

TEST(PackIndex, RefusesInconsistentLayers) {
  const auto first = [](Json& json) -> Json& { return json["layers"][0]; };
  expect_refused({"layers[1].layer", "more than 4"}, [&](Json& json) { first(json)["layer"] = 4; });
  expect_refused({"layers[0].layer"}, [&](Json& json) { first(json)["layer"] = -1; });
  expect_refused({"layers[0].layer"}, [&](Json& json) { first(json)["layer"] = 100000; });
  expect_refused({"layers[1].file"}, [&](Json& json) { first(json)["file"] = "experts-00004.bin"; });
  expect_refused({"layers[0].record_bytes", "57344", "57345"},
                 [&](Json& json) { first(json)["record_bytes"] = 57345; });
  expect_refused({"layers[0].gate.type", "Q9"}, [&](Json& json) { first(json)["gate"]["type"] = "Q9"; });
  expect_refused({"layers[0].gate.type"}, [&](Json& json) { first(json)["gate"]["type"] = "I64"; });
  expect_refused({"layers[0].record_bytes"}, [&](Json& json) { first(json)["gate"]["type"] = "F16"; });
  expect_refused({"layers[0].up.rows"}, [&](Json& json) { first(json)["up"]["rows"] = int64_t{1} << 60; });
  expect_refused({"layers[0].down.cols"}, [&](Json& json) { first(json)["down"]["cols"] = 0; });
  expect_refused({"layers[0]", "belong together"}, [&](Json& json) { first(json)["up"]["rows"] = 64; });
  expect_refused({"layers[0]", "multiple of 256"}, [&](Json& json) { first(json)["down"]["type"] = "Q4_K"; });
}

TEST(PackIndex, RefusesNamesThatLeaveTheDirectory) {
  for (const std::string& bad :
       {std::string(".."), std::string("."), std::string(""), std::string("/etc/passwd"), std::string("../x.bin"),
        std::string("a/b"), std::string("a\0b", 3), std::string(300, 'x')}) {
    expect_refused({"layers[0].file"}, [&](Json& json) { json["layers"][0]["file"] = bad; });
    expect_refused({"files"}, [&](Json& json) { json["files"][bad] = "0000000000000000"; });
  }
}

TEST(PackIndex, RefusesBadChecksums) {
  for (const Json& bad : {Json(1), Json(""), Json("123"), Json("00000000000000000"), Json("000000000000000G"),
                          Json("ABCDEF0123456789"), Json("0x00000000000000"), Json(" 00000000000000 ")}) {
    expect_refused({"layers[0].checksums[1]"}, [&](Json& json) { json["layers"][0]["checksums"][1] = bad; });
    expect_refused({"files.config.json"}, [&](Json& json) { json["files"]["config.json"] = bad; });
    expect_refused({"tensors.model.norm.weight"}, [&](Json& json) { json["tensors"]["model.norm.weight"] = bad; });
  }
  expect_refused({"checksums"}, [](Json& json) { json["layers"][0]["checksums"] = Json::array(); });
  expect_refused({"checksums", "4097"}, [](Json& json) {
    json["layers"][0]["checksums"] = std::vector<std::string>(PackIndex::kMaxExperts + 1, "0000000000000000");
  });
}

TEST(PackIndex, EveryTruncationIsRefused) {
  const std::string& text = example_text();
  for (size_t length = 0; length + 2 < text.size(); ++length) {
    testing::expect_error(ErrorKind::kBadFile, {"i.json"}, [&] { PackIndex::parse(text.substr(0, length), "i.json"); });
  }
}

}  // namespace
}  // namespace moraine::quant
