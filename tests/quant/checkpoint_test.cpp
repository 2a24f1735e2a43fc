#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "quant/safetensors.h"
#include "support/expect_error.h"
#include "support/safetensors_text.h"
#include "support/temp_dir.h"

namespace moraine::quant {
namespace {

using ::testing::ElementsAre;
using testing::entry;
using testing::expect_error;
using ::testing::HasSubstr;
using testing::safetensors_file;
using testing::TempDir;

constexpr const char* kIndexName = "model.safetensors.index.json";

/// A file with one U8 tensor of these bytes.
std::string one_tensor(std::string_view name, std::string_view data) {
  return safetensors_file('{' + entry(name, "U8", std::to_string(data.size()), 0, data.size()) + "}", data);
}

std::string index_of(std::string_view weight_map, std::string_view metadata = R"({"total_size": 7})") {
  return fmt::format(R"({{"metadata": {}, "weight_map": {{{}}}}})", metadata, weight_map);
}

std::string content(const Checkpoint& checkpoint, std::string_view name) {
  const TensorInfo& tensor = checkpoint.at(name);
  std::string bytes(tensor.size_bytes, '?');
  checkpoint.read(tensor, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

/// Two shards with tensors "a" and "b" and a matching index.
class ShardedCheckpoint : public ::testing::Test {
 protected:
  ShardedCheckpoint() {
    dir_.write("model-1.safetensors", one_tensor("a", "abc"));
    dir_.write("model-2.safetensors", one_tensor("b", "defg"));
    write_index(R"("b": "model-2.safetensors", "a": "model-1.safetensors")");
  }
  void write_index(std::string_view weight_map) { dir_.write(kIndexName, index_of(weight_map)); }
  Checkpoint open() const { return Checkpoint::open(dir_.path()); }
  void expect_refused(std::initializer_list<std::string_view> parts) const {
    expect_error(ErrorKind::kBadFile, parts, [&] { open(); });
  }

  TempDir dir_;
};

TEST(Checkpoint, TakesBlockFormatsFromAFinishedPackOnly) {
  const TempDir dir;
  dir.write("model.safetensors", safetensors_file('{' + entry("w", "Q8_0", "1,32", 0, 34) + "}", std::string(34, 'x')));
  expect_error(ErrorKind::kBadFile, {"model.safetensors", "'w'", "unknown dtype", "Q8_0", "finished Moraine pack"},
               [&] { Checkpoint::open(dir.path()); });
  dir.write("moraine_pack.json", "{}");
  EXPECT_EQ(Checkpoint::open(dir.path()).at("w").dtype, DType::kQ8_0);
}

TEST_F(ShardedCheckpoint, IsOneTable) {
  const Checkpoint checkpoint = open();
  EXPECT_EQ(checkpoint.directory(), dir_.path());
  EXPECT_THAT(checkpoint.files(), ElementsAre(dir_ / "model-1.safetensors", dir_ / "model-2.safetensors"));
  EXPECT_EQ(checkpoint.tensors().size(), 2u);
  EXPECT_EQ(checkpoint.at("a").file, 0);
  EXPECT_EQ(checkpoint.at("b").file, 1);
  EXPECT_EQ(content(checkpoint, "a"), "abc");
  EXPECT_EQ(content(checkpoint, "b"), "defg");
  EXPECT_TRUE(checkpoint.warnings().empty());
}

TEST_F(ShardedCheckpoint, FindsByName) {
  const Checkpoint checkpoint = open();
  EXPECT_EQ(checkpoint.find("c"), nullptr);
  ASSERT_NE(checkpoint.find("b"), nullptr);
  EXPECT_EQ(checkpoint.find("b")->size_bytes, 4u);
  expect_error(ErrorKind::kBadFile, {dir_.path().string(), "'c'", "no such tensor"}, [&] { checkpoint.at("c"); });
}

TEST_F(ShardedCheckpoint, CopiesAndThreadsShareItsFiles) {
  std::vector<Checkpoint> copies;
  {
    const Checkpoint checkpoint = open();
    copies.push_back(checkpoint);
  }
  std::vector<std::string> read(4);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < read.size(); ++i) {
    threads.emplace_back([&, i] { read[i] = content(copies[0], i % 2 == 0 ? "a" : "b"); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(read, ElementsAre("abc", "defg", "abc", "defg"));
}

TEST_F(ShardedCheckpoint, AFileThatShrankIsAnErrorNotText) {
  const Checkpoint checkpoint = open();
  std::filesystem::resize_file(dir_ / "model-2.safetensors",
                               std::filesystem::file_size(dir_ / "model-2.safetensors") - 1);
  expect_error(ErrorKind::kBadFile, {"model-2.safetensors", "ends too early"}, [&] { content(checkpoint, "b"); });
  EXPECT_EQ(content(checkpoint, "a"), "abc");
}

TEST_F(ShardedCheckpoint, NamesAllMissingShards) {
  write_index(R"("b": "model-2.safetensors", "a": "model-1.safetensors", "c": "x.safetensors", "d": "y.safetensors")");
  expect_refused({dir_.path().string(), "2 of 4", "missing: x.safetensors, y.safetensors", "finish the download"});
}

TEST_F(ShardedCheckpoint, NamesEveryShardOfTheLargestModelsAndCutsWhatIsLonger) {
  const auto write_index_of = [&](int files) {
    std::string weight_map;
    for (int i = 1; i <= files; ++i) {
      weight_map += fmt::format(R"({}"t{}": "model-{:05}-of-000163.safetensors")", i == 1 ? "" : ",", i, i);
    }
    write_index(weight_map);
  };
  write_index_of(163);
  expect_refused({"163 of 163", "model-00001-of-000163", "model-00077-of-000163", "model-00163-of-000163.safetensors"});
  write_index_of(1200);
  expect_refused({"1200 of 1200", "model-01000-of-000163.safetensors and 200 more"});
}

TEST_F(ShardedCheckpoint, NamesAllIncompleteShardsBesideTheMissingOnes) {
  const std::string first = one_tensor("a", "abc"), second = one_tensor("b", "defg");
  dir_.write("model-1.safetensors", std::string_view(first).substr(0, first.size() - 1));
  dir_.write("model-2.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n");
  expect_refused({"2 of 2 model files are incomplete or damaged: model-1.safetensors: the file is truncated",
                  fmt::format("got {} bytes", first.size() - 1), "; model-2.safetensors: ", "Git-LFS pointer"});
  write_index(R"("a": "model-1.safetensors", "b": "model-2.safetensors", "c": "x.safetensors")");
  expect_refused({"1 of 3 model files are missing: x.safetensors; 2 of 3", "model-1.safetensors: the file is truncated",
                  "model-2.safetensors: "});
}

TEST_F(ShardedCheckpoint, ADanglingLinkIsAMissingShard) {
  std::filesystem::remove(dir_ / "model-2.safetensors");
  std::filesystem::create_symlink("blobs/0123", dir_ / "model-2.safetensors");
  expect_refused({"1 of 2", "missing: model-2.safetensors"});
}

TEST_F(ShardedCheckpoint, LinksAreFollowed) {
  std::filesystem::rename(dir_ / "model-2.safetensors", dir_ / "blob");
  std::filesystem::create_symlink("blob", dir_ / "model-2.safetensors");
  EXPECT_EQ(content(open(), "b"), "defg");
}

TEST_F(ShardedCheckpoint, RecognisesAnIncompleteDownload) {
  dir_.write("model-2.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n");
  expect_refused({"model-2.safetensors", "Git-LFS pointer"});
  const std::string whole = one_tensor("b", "defg");
  dir_.write("model-2.safetensors", std::string_view(whole).substr(0, whole.size() - 2));
  expect_refused({"model-2.safetensors", "truncated", fmt::format("expected a file of {} bytes", whole.size()),
                  fmt::format("got {} bytes", whole.size() - 2), "download it again"});
}

TEST_F(ShardedCheckpoint, RefusesUnsafeFileNames) {
  // The file exists, so that only its name can be the reason.
  dir_.write(".safetensors", one_tensor("b", "defg"));
  dir_.write("model-2.bin", one_tensor("b", "defg"));
  std::filesystem::create_directory(dir_ / "sub");
  dir_.write("sub/m.safetensors", one_tensor("b", "defg"));
  for (const std::string& name :
       {std::string("sub/m.safetensors"), std::string("../m.safetensors"), (dir_ / "model-2.safetensors").string(),
        std::string("sub\\\\m.safetensors"), std::string("a..safetensors"), std::string("model-2.bin"), std::string(""),
        std::string(".safetensors"), std::string("m\\u0000.safetensors"), std::string("."),
        std::string(250, 'm') + ".safetensors"}) {
    SCOPED_TRACE(name);
    write_index(fmt::format(R"("a": "model-1.safetensors", "b": "{}")", name));
    expect_refused({kIndexName, "'b'", "unsafe file name", "*.safetensors name in the same directory"});
  }
}

TEST_F(ShardedCheckpoint, RefusesAFileNameThatIsNoString) {
  for (const char* value : {"1", "null", "[]", "{}"}) {
    write_index(fmt::format(R"("a": {})", value));
    expect_refused({kIndexName, "'a'", "not a file name", "expected a string"});
  }
}

TEST_F(ShardedCheckpoint, RefusesABrokenIndex) {
  for (const char* text : {"{}", R"({"weight_map": 1})", R"({"weight_map": {}})", R"({"weight_map": ["a"]})"}) {
    dir_.write(kIndexName, text);
    expect_refused({kIndexName, "no weight_map"});
  }
  dir_.write(kIndexName, "[]");
  expect_refused({kIndexName, "no JSON object"});
  dir_.write(kIndexName, R"({"weight_map": {"a": )");
  expect_refused({kIndexName, "not valid JSON", "at byte 21"});
  write_index(R"("a": "model-1.safetensors", "a": "model-2.safetensors")");
  expect_refused({kIndexName, "'a'", "twice"});
}

TEST_F(ShardedCheckpoint, RefusesATensorInTwoFiles) {
  dir_.write("model-2.safetensors",
             safetensors_file('{' + entry("a", "U8", "1", 0, 1) + "," + entry("b", "U8", "4", 1, 5) + "}", "xdefg"));
  expect_refused({"model-2.safetensors", "'a'", "in two files", "model-1.safetensors"});
}

TEST_F(ShardedCheckpoint, RefusesAMappedTensorThatIsNotInItsFile) {
  write_index(R"("a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors")");
  expect_refused({kIndexName, "'c'", "it in model-2.safetensors", "it in no file", "download"});
  write_index(R"("a": "model-2.safetensors", "b": "model-1.safetensors")");
  expect_refused({kIndexName, "it in model-2.safetensors", "got it in model-1.safetensors"});
}

TEST_F(ShardedCheckpoint, UnmappedTensorsAreAWarning) {
  dir_.write("model-1.safetensors",
             safetensors_file('{' + entry("a", "U8", "1", 0, 1) + "," + entry("x", "U8", "1", 1, 2) + "," +
                                  entry("y", "U8", "1", 2, 3) + "}",
                              "123"));
  const Checkpoint checkpoint = open();
  EXPECT_THAT(checkpoint.warnings(),
              ElementsAre(HasSubstr("2 tensors are in the files but not in weight_map, the first is 'x'")));
  EXPECT_EQ(content(checkpoint, "x"), "2");
}

TEST_F(ShardedCheckpoint, AWrongTotalSizeIsAWarning) {
  const char* weight_map = R"("a": "model-1.safetensors", "b": "model-2.safetensors")";
  dir_.write(kIndexName, index_of(weight_map, R"({"total_size": 8, "more": [1]})"));
  EXPECT_THAT(open().warnings(), ElementsAre(HasSubstr("total_size says 8 bytes, the tensors have 7")));
  for (const char* metadata : {"{}", "null", R"({"total_size": 7.0})", R"({"total_size": "7"})"}) {
    dir_.write(kIndexName, index_of(weight_map, metadata));
    EXPECT_TRUE(open().warnings().empty()) << metadata;
  }
  dir_.write(kIndexName, fmt::format(R"({{"weight_map": {{{}}}}})", weight_map));
  EXPECT_TRUE(open().warnings().empty());
}

TEST(SingleCheckpoint, NeedsNoIndex) {
  const TempDir dir;
  dir.write("model.safetensors", one_tensor("w", "xyz"));
  dir.write("stray.safetensors", "not looked at");
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  EXPECT_THAT(checkpoint.files(), ElementsAre(dir / "model.safetensors"));
  EXPECT_EQ(content(checkpoint, "w"), "xyz");
}

TEST(SingleCheckpoint, AnIndexMayNameIt) {
  const TempDir dir;
  dir.write("model.safetensors", one_tensor("w", "xyz"));
  dir.write(kIndexName, index_of(R"("w": "model.safetensors")", "{}"));
  EXPECT_EQ(content(Checkpoint::open(dir.path()), "w"), "xyz");
}

TEST(NoCheckpoint, SaysWhatIsThereInstead) {
  const TempDir dir;
  const auto expect_refused = [&](std::initializer_list<std::string_view> parts) {
    expect_error(ErrorKind::kBadFile, parts, [&] { Checkpoint::open(dir.path()); });
  };
  expect_refused({dir.path().string(), "no model weights", kIndexName});
  dir.write("pytorch_model.bin", "PK");
  expect_refused({"no model weights", "can run code"});
  dir.write("model-00001-of-00002.safetensors", one_tensor("w", "x"));
  expect_refused({"1 other .safetensors files", "download model.safetensors.index.json"});
  expect_error(ErrorKind::kBadFile, {"no such directory"}, [&] { Checkpoint::open(dir / "gone"); });
  expect_error(ErrorKind::kBadFile, {"not a directory"}, [&] { Checkpoint::open(dir / "pytorch_model.bin"); });
}

TEST(EmbeddedModel, OpensWithoutWarnings) {
  const Checkpoint checkpoint = Checkpoint::open(std::string(MORAINE_SOURCE_DIR) + "/tools/models/tiny-r1");
  EXPECT_EQ(checkpoint.files().size(), 4u);
  EXPECT_TRUE(checkpoint.warnings().empty());
  const TensorInfo& embedding = checkpoint.at("model.embed_tokens.weight");
  EXPECT_EQ(embedding.shape.size(), 2u);
  EXPECT_EQ(content(checkpoint, "model.embed_tokens.weight").size(), embedding.size_bytes);
}

TEST(CheckpointDeathTest, TheBufferMustHaveTheTensorsSize) {
  const TempDir dir;
  dir.write("model.safetensors", one_tensor("w", "xyz"));
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  std::string bytes(2, '?');
  EXPECT_DEATH(checkpoint.read(checkpoint.at("w"), std::as_writable_bytes(std::span(bytes))), "internal error");
}

}  // namespace
}  // namespace moraine::quant
