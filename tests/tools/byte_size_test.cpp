#include "tools/byte_size.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace moraine::tools {
namespace {

TEST(ByteSize, ReadsBinaryAndDecimalUnits) {
  EXPECT_EQ(parse_byte_size("6GiB"), uint64_t{6} << 30);
  EXPECT_EQ(parse_byte_size("512 MiB"), uint64_t{512} << 20);
  EXPECT_EQ(parse_byte_size("1.5GB"), 1'500'000'000u);
  EXPECT_EQ(parse_byte_size("2tib"), uint64_t{2} << 40);
  EXPECT_EQ(parse_byte_size("3kB"), 3000u);
  EXPECT_EQ(parse_byte_size("0.5KiB"), 512u);
  EXPECT_EQ(parse_byte_size("4096"), 4096u);
  EXPECT_EQ(parse_byte_size("7B"), 7u);
  EXPECT_EQ(parse_byte_size("0"), 0u);
}

TEST(ByteSize, RefusesWhatIsNoSize) {
  for (const char* text :
       {"", "GiB", "6 apples", "-1GiB", "-0", "1e3", "nan", "inf", "0x10", "6GiBs", "9000000TiB", "1G", " 1"}) {
    testing::expect_error(quant::ErrorKind::kUsage, {"not a size in bytes", "6GiB"},
                          [&] { ADD_FAILURE() << text << " was read as " << parse_byte_size(text); });
  }
}

TEST(ByteSize, PrintsInTheLargestFittingUnit) {
  EXPECT_EQ(byte_size_text(0), "0 B");
  EXPECT_EQ(byte_size_text(1023), "1023 B");
  EXPECT_EQ(byte_size_text(1024), "1.0 KiB");
  EXPECT_EQ(byte_size_text((1u << 20) - 1), "1.0 MiB");  // not "1024.0 KiB"
  EXPECT_EQ(byte_size_text(uint64_t{368} << 30), "368.0 GiB");
  EXPECT_EQ(byte_size_text(~uint64_t{0}), "16384.0 PiB");
}

}  // namespace
}  // namespace moraine::tools
