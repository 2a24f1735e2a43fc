#include "quant/npy.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::quant {
namespace {

TEST(WriteNpy, WritesFormat1Exactly) {
  const testing::TempDir dir;
  const std::vector<float> values = {1.0f, -2.5f, 0.0f, 4.0f, 5.0f, 6.0f};
  write_npy_f32(dir / "a.npy", values, 2, 3);
  // As numpy.save writes np.float32 [2, 3]: 128 bytes of header, then the values.
  std::string expected("\x93NUMPY\x01\x00\x76\x00", 10);
  expected += "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  expected.resize(127, ' ');
  expected += '\n';
  expected.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  EXPECT_EQ(testing::file_content(dir / "a.npy"), expected);
}

TEST(WriteNpy, HeaderIsAMultipleOf64AtEveryShape) {
  const testing::TempDir dir;
  for (const int64_t rows : {int64_t{0}, int64_t{1'000'000'000}, int64_t{1'000'000'000'000'000'000}}) {
    write_npy_f32(dir / "a.npy", {}, rows, 0);
    const std::string bytes = testing::file_content(dir / "a.npy");
    EXPECT_EQ(bytes.size() % 64, 0u) << rows;
    EXPECT_EQ(static_cast<unsigned char>(bytes[8]) + 10u, bytes.size()) << rows;
    EXPECT_NE(bytes.find("(" + std::to_string(rows) + ", 0)"), std::string::npos);
    EXPECT_EQ(bytes.back(), '\n');
  }
}

TEST(WriteNpy, SaysWhereItCannotWrite) {
  const testing::TempDir dir;
  testing::expect_error(ErrorKind::kIo, {"gone/a.npy"}, [&] { write_npy_f32(dir / "gone/a.npy", {}, 0, 0); });
}

TEST(WriteNpyDeathTest, ShapeMustMatchTheValues) {
  const std::vector<float> values(6);
  EXPECT_DEATH(write_npy_f32("never.npy", values, 2, 2), "internal error");
}

}  // namespace
}  // namespace moraine::quant
