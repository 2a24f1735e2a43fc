#include "tools/source_hashes.h"

#include <gtest/gtest.h>

#include "quant/sha256.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;

std::string sha256(std::string_view text) {
  quant::Sha256 hash;
  hash.update(std::as_bytes(std::span(text)));
  return hash.hex_digest();
}

class SourceHashesTest : public ::testing::Test {
 protected:
  fs::path shard(int number) const { return directory_ / ("model-" + std::to_string(number) + ".safetensors"); }
  static std::string content(int number) { return "shard " + std::to_string(number); }
  std::vector<fs::path> write_shards(int count) {
    std::vector<fs::path> files;
    for (int i = 1; i <= count; ++i) {
      files.push_back(directory_.write(shard(i).filename().string(), content(i)));
    }
    return files;
  }
  fs::path record() const { return directory_ / "record.txt"; }

  testing::TempDir directory_;
};

TEST_F(SourceHashesTest, AllStatementsAreFound) {
  const std::vector<fs::path> files = write_shards(5);
  std::string upper = sha256(content(1));
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  directory_.write("model-1.safetensors.sha256", upper + "\n");
  directory_.write("SHA256SUMS", "# a comment\n" + sha256(content(2)) + "  model-2.safetensors\r\n" + sha256("x") +
                                     " *./model-5.safetensors\n" + sha256("y") + "  other\nmodel-3.safetensors\n");
  fs::create_directories(directory_ / ".cache/huggingface/download");
  directory_.write(".cache/huggingface/download/model-3.safetensors.metadata",
                   "0123456789012345678901234567890123456789\n" + sha256(content(3)) + "\n1730000000.0\n");
  directory_.write(".cache/huggingface/download/model-2.safetensors.metadata",
                   "0123\n0123456789012345678901234567890123456789\n1730000000.0\n");  // a Git hash: no statement
  fs::create_directories(directory_ / "blobs");
  fs::rename(files[3], directory_ / "blobs" / sha256(content(4)));
  fs::create_symlink(fs::path("blobs") / sha256(content(4)), files[3]);

  const std::vector<StatedHash> found = stated_hashes(files);
  ASSERT_EQ(found.size(), 5u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(found[i].file, files[i]);
    EXPECT_EQ(found[i].sha256, sha256(content(static_cast<int>(i) + 1))) << i;
  }
  EXPECT_EQ(found[4].sha256, sha256("x"));
  EXPECT_EQ(found[4].stated_by, "SHA256SUMS");
}

TEST_F(SourceHashesTest, NothingStatedIsNothingToDo) {
  SourceHashes hashes(stated_hashes(write_shards(2)), record());
  EXPECT_EQ(hashes.stated_files(), 0u);
  hashes.check(2, {});
  EXPECT_FALSE(fs::exists(record()));
}

TEST_F(SourceHashesTest, EveryFileThatDiffersIsNamedAndTheOthersAreRemembered) {
  const std::vector<fs::path> files = write_shards(4);
  std::string list;
  for (int i = 1; i <= 4; ++i)
    list += sha256(i % 2 == 0 ? content(i) : "other") + "  " + shard(i).filename().string() + "\n";
  directory_.write("SHA256SUMS", list);
  SourceHashes hashes(stated_hashes(files), record());
  EXPECT_EQ(hashes.unchecked_files(), 4u);
  testing::expect_error(quant::ErrorKind::kChecksum,
                        {"2 of 4 model files", "model-1.safetensors (" + sha256("other") + " by SHA256SUMS",
                         "model-3.safetensors", sha256(content(3)) + " on the disk", "download these files again"},
                        [&] { hashes.check(3, {}); });
  SourceHashes again(stated_hashes(files), record());
  EXPECT_EQ(again.stated_files(), 4u);
  EXPECT_EQ(again.unchecked_files(), 2u);
  EXPECT_EQ(again.unchecked_bytes(), 2 * content(1).size());
}

TEST_F(SourceHashesTest, WhatWasCheckedIsReadAgainOnlyIfItChanged) {
  const std::vector<fs::path> files = write_shards(2);
  directory_.write("all.sha256",
                   sha256(content(1)) + "  model-1.safetensors\n" + sha256(content(2)) + "  model-2.safetensors");
  SourceHashes(stated_hashes(files), record()).check(1, {});
  EXPECT_EQ(SourceHashes(stated_hashes(files), record()).unchecked_files(), 0u);

  const std::string whole = testing::file_content(record());
  directory_.write("record.txt", std::string_view(whole).substr(0, whole.size() - 3));  // torn
  EXPECT_EQ(SourceHashes(stated_hashes(files), record()).unchecked_files(), 1u);
  directory_.write("record.txt", whole);

  directory_.write("model-2.safetensors", "shard X");  // of the same size, so its time must tell
  fs::last_write_time(files[1], fs::last_write_time(files[1]) + std::chrono::seconds(2));
  SourceHashes changed(stated_hashes(files), record());
  EXPECT_EQ(changed.unchecked_files(), 1u);
  testing::expect_error(quant::ErrorKind::kChecksum, {"1 of 2", "model-2"}, [&] { changed.check(1, {}); });
  SourceHashes(stated_hashes(files), record()).forget();
  EXPECT_FALSE(fs::exists(record()));
}

}  // namespace
}  // namespace moraine::tools
