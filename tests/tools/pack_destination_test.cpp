#include "tools/pack_destination.h"

#include <gtest/gtest.h>

#include "quant/checksum.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

constexpr const char* kOther = "something else is there";

TEST(PackDestination, ANewDirectoryIsMarkedThenRecognised) {
  const TempDir dir;
  const fs::path pack = dir / "a/pack";
  const PackDestination first(pack, "me", kOther);
  EXPECT_FALSE(first.resumes());
  EXPECT_FALSE(fs::exists(pack));
  first.begin();
  const PackDestination second(pack, "me", kOther);
  EXPECT_TRUE(second.resumes());
  EXPECT_FALSE(second.finished());
  quant::PackIndex index;
  index.wanted_type = "Q8_0";
  index.write(pack);
  const PackDestination third(pack, "me", kOther);
  EXPECT_FALSE(third.resumes());
  EXPECT_TRUE(third.finished());
}

TEST(PackDestination, NothingElseIsOverwritten) {
  const TempDir dir;
  PackDestination(dir / "pack", "me", kOther).begin();
  testing::expect_error(quant::ErrorKind::kUsage, {kOther, "pack"},
                        [&] { PackDestination(dir / "pack", "you", kOther); });
  const TempDir thesis;
  thesis.write("thesis.txt", "years of work");
  testing::expect_error(quant::ErrorKind::kUsage, {"no part of a conversion", "thesis.txt"},
                        [&] { PackDestination(thesis.path(), "me", kOther); });
  testing::expect_error(quant::ErrorKind::kUsage, {"no directory"},
                        [&] { PackDestination(thesis / "thesis.txt", "me", kOther); });
}

TEST(PackDestination, TheTemporaryFileOfACrashAtTheStartIsNoHindrance) {
  const TempDir dir;
  dir.write("moraine_source.json.tmp", "m");
  EXPECT_FALSE(PackDestination(dir.path(), "me", kOther).resumes());
}

TEST(PackDestination, RoomIsCountedWithWhatIsThere) {
  const TempDir dir;
  const FreeBytes free_bytes = [](const fs::path&) { return uint64_t{17} << 20; };
  const uint64_t total_bytes = uint64_t{2} << 20;
  const PackDestination destination(dir.path(), "me", kOther);
  testing::expect_error(quant::ErrorKind::kNotEnough, {"not enough room", "18.0 MiB", "17.0 MiB"},
                        [&] { destination.check_space(total_bytes, free_bytes); });
  dir.write("experts-00001.bin.part", std::string(1 << 20, 'x'));
  EXPECT_NO_THROW(destination.check_space(total_bytes, free_bytes));
}

TEST(PackDestination, TextsAreWrittenAndSummed) {
  const TempDir dir;
  const PackDestination destination(dir.path(), "me", kOther);
  destination.begin();
  quant::PackIndex pack;
  destination.add_identity(pack);
  destination.add_text("config.json", "{}", pack);
  EXPECT_EQ(testing::file_content(dir / "config.json"), "{}");
  ASSERT_EQ(pack.file_checksums.size(), 2u);
  for (const auto& [name, sum] : pack.file_checksums) {
    const std::string text = testing::file_content(dir / name);
    EXPECT_EQ(quant::checksum(std::as_bytes(std::span(text))), sum) << name;
  }
}

}  // namespace
}  // namespace moraine::tools
