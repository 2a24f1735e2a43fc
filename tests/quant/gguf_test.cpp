#include "quant/gguf.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "support/expect_error.h"
#include "support/gguf_bytes.h"
#include "support/temp_dir.h"

namespace moraine::quant {
namespace {

using testing::expect_error;
using testing::GgufBytes;
using testing::TempDir;

/// Part `number` (from 0) of `count`, with one tensor of four f32.
GgufBytes part(int number, int count, int tensors_in_all, const std::string& tensor) {
  GgufBytes file;
  file.key("split.no", GgufValue::u16(static_cast<uint16_t>(number)));
  file.key("split.count", GgufValue::u16(static_cast<uint16_t>(count)));
  file.key("split.tensors.count", GgufValue::i32(tensors_in_all));
  if (number == 0) file.key("general.architecture", GgufValue::string("deepseek2"));
  file.tensor(tensor, {4}, 0, 0).bytes(tensor + std::string(16 - tensor.size(), '.'));
  return file;
}

class SplitGguf : public ::testing::Test {
 protected:
  SplitGguf() {
    for (int i = 0; i < 3; ++i) write(i, part(i, 3, 3, fmt::format("t{}", i)));
  }
  std::filesystem::path name(int number) const { return dir_ / fmt::format("m-{:05}-of-00003.gguf", number + 1); }
  void write(int number, const GgufBytes& file) { dir_.write(name(number).filename().string(), file.file()); }
  void expect_refused(std::initializer_list<std::string_view> parts) const {
    expect_error(ErrorKind::kBadFile, parts, [&] { Gguf::open(name(0)); });
  }

  TempDir dir_;
};

TEST_F(SplitGguf, OpensAllPartsWhicheverIsNamed) {
  for (int named = 0; named < 3; ++named) {
    const Gguf gguf = Gguf::open(name(named));
    ASSERT_EQ(gguf.files().size(), 3u);
    EXPECT_EQ(gguf.files()[0], name(0));
    EXPECT_EQ(*gguf.metadata().at("general.architecture").text(), "deepseek2");
    ASSERT_EQ(gguf.tensors().size(), 3u);
    EXPECT_EQ(gguf.tensors()[2].name, "t2");
    EXPECT_EQ(gguf.tensors()[2].file, 2);
    const TensorInfo& tensor = gguf.tensors()[1];
    EXPECT_EQ(testing::file_content(gguf.files()[1]).substr(tensor.offset, 2), "t1");
  }
}

TEST_F(SplitGguf, NamesEveryMissingPart) {
  std::filesystem::remove(name(1));
  std::filesystem::remove(name(2));
  expect_refused({"2 of 3 parts are missing", "m-00002-of-00003.gguf, m-00003-of-00003.gguf", "finish the download"});
}

TEST_F(SplitGguf, RefusesPartsThatDoNotBelongTogether) {
  write(1, part(2, 3, 3, "t1"));
  expect_refused({"m-00002", "split.no", "expected 1, got 2"});
  write(1, part(1, 4, 3, "t1"));
  expect_refused({"m-00002", "split.count", "expected 3, got 4"});
  write(1, part(1, 3, 3, "t0"));
  expect_refused({"m-00002", "'t0'", "two parts"});
  write(1, part(1, 3, 3, "t1"));
  write(0, part(0, 3, 4, "t0"));
  expect_refused({"split.tensors.count", "expected 3, got 4"});
  GgufBytes text_count;
  text_count.key("split.count", GgufValue::string("3"));
  write(0, text_count);
  expect_refused({"split.count", "not an integer", "string"});
}

TEST_F(SplitGguf, RefusesAPartUnderAnotherName) {
  const auto file = dir_.write("model.gguf", part(1, 3, 3, "t1").file());
  expect_error(ErrorKind::kBadFile, {"model.gguf", "split.count", "expected 1, got 3", "names"},
               [&] { Gguf::open(file); });
}

TEST(Gguf, OpensAFileThatPartsWereMergedInto) {
  const TempDir dir;
  const auto file = dir.write("model.gguf", part(0, 0, 1, "t").file());
  EXPECT_EQ(Gguf::open(file).tensors().size(), 1u);
  const auto lone = dir.write("m-00001-of-00001.gguf", part(0, 1, 1, "t").file());
  EXPECT_EQ(Gguf::open(lone).files().size(), 1u);
}

TEST(Gguf, RefusesWhatIsNoFile) {
  const TempDir dir;
  expect_error(ErrorKind::kBadFile, {"absent.gguf"}, [&] { Gguf::open(dir / "absent.gguf"); });
  expect_error(ErrorKind::kBadFile, {}, [&] { Gguf::open(dir.path()); });
  const auto pointer = dir.write("lfs.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  expect_error(ErrorKind::kBadFile, {"lfs.gguf", "LFS"}, [&] { Gguf::open(pointer); });
}

}  // namespace
}  // namespace moraine::quant
