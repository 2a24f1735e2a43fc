#include "quant/error.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace moraine::quant {
namespace {

TEST(Error, TellsEveryPartInOneLine) {
  const Error error(ErrorKind::kBadFile, {.what = "wrong size",
                                          .file = "dir/a.safetensors",
                                          .item = "lm_head.weight",
                                          .offset = 40,
                                          .expected = "8 bytes",
                                          .got = "9 bytes",
                                          .action = "download it again"});
  EXPECT_STREQ(error.what(),
               "dir/a.safetensors: 'lm_head.weight': wrong size at byte 40; expected 8 bytes, got 9 bytes (download it "
               "again)");
  EXPECT_EQ(error.kind(), ErrorKind::kBadFile);
}

TEST(Error, LeavesEmptyPartsOut) {
  EXPECT_STREQ(Error(ErrorKind::kUsage, {.what = "no model"}).what(), "no model");
  EXPECT_STREQ(Error(ErrorKind::kUsage, {.what = "bad", .got = "7"}).what(), "bad; got 7");
  EXPECT_STREQ(Error(ErrorKind::kUsage, {.what = "bad", .expected = "7"}).what(), "bad; expected 7");
}

TEST(Error, KindsAreTheExitCodes) {
  EXPECT_EQ(static_cast<int>(ErrorKind::kUsage), 2);
  EXPECT_EQ(static_cast<int>(ErrorKind::kBadFile), 3);
  EXPECT_EQ(static_cast<int>(ErrorKind::kNotEnough), 4);
  EXPECT_EQ(static_cast<int>(ErrorKind::kIo), 5);
  EXPECT_EQ(static_cast<int>(ErrorKind::kChecksum), 6);
}

TEST(Error, NamesFromFilesCannotBreakTheLine) {
  const Error error(ErrorKind::kBadFile, {.what = "w", .file = "a\nb", .item = "x\x1b[2Jy\n"});
  EXPECT_STREQ(error.what(), "a\\x0ab: 'x\\x1b[2Jy\\x0a': w");
}

TEST(Printable, KeepsUtf8) {
  EXPECT_EQ(printable("größe 深い 🙂"), "größe 深い 🙂");
}

TEST(Printable, EscapesControlBytesAndInvalidUtf8) {
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("\x7f\xff"), "\\x7f\\xff");
  EXPECT_EQ(printable("\xc3("), "\\xc3(");                           // a lead byte without its continuation
  EXPECT_EQ(printable("\xe6\xb7"), "\\xe6\\xb7");                    // cut in the middle
  EXPECT_EQ(printable("\xc0\xaf"), "\\xc0\\xaf");                    // overlong
  EXPECT_EQ(printable("\xe0\x80\xaf"), "\\xe0\\x80\\xaf");           // overlong in three bytes
  EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");           // a surrogate
  EXPECT_EQ(printable("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // above U+10FFFF
  EXPECT_EQ(printable("\xc2\x9b"
                      "2J"),
            "\\xc2\\x9b2J");  // C1: a terminal's control sequence introducer
  EXPECT_EQ(printable("\xc2\xa0"), "\xc2\xa0");
}

TEST(Printable, CutsLongText) {
  EXPECT_EQ(printable("abcdef", 3), "abc…");
  EXPECT_EQ(printable("abc", 3), "abc");
}

TEST(SystemError, LackOfSpaceIsItsOwnKind) {
  for (const int code : {ENOSPC, EDQUOT, ENOMEM}) {
    EXPECT_EQ(system_error(code, "could not write", "f").kind(), ErrorKind::kNotEnough) << code;
  }
  const Error error = system_error(EIO, "could not read", "f", "check the disk");
  EXPECT_EQ(error.kind(), ErrorKind::kIo);
  EXPECT_STREQ(error.what(), "f: could not read: Input/output error (check the disk)");
}

TEST(CheckDeathTest, FalseConditionEndsTheProcess) {
  const int two = 2;
  MORAINE_CHECK(two == 2);
  EXPECT_DEATH(MORAINE_CHECK(two == 3), "internal error: two == 3 does not hold");
}

}  // namespace
}  // namespace moraine::quant
