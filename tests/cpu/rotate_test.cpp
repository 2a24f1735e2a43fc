#include "cpu/rotate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>

namespace moraine::cpu {
namespace {

TEST(Rotate, TurnsInterleavedPairsByTheirAngles) {
  const float angles[] = {0.0f, 1.0f, -2.5f};
  float cos[3], sin[3];
  for (int i = 0; i < 3; ++i) {
    cos[i] = std::cos(angles[i]);
    sin[i] = std::sin(angles[i]);
  }
  const float x[6] = {1.0f, 2.0f, -3.0f, 0.5f, 4.0f, -1.5f};
  float y[7] = {x[0], x[1], x[2], x[3], x[4], x[5], 99.0f};
  rotate_pairs(y, cos, sin, 3);
  for (int i = 0; i < 3; ++i) {
    const std::complex<double> turned =
        std::complex<double>(x[2 * i], x[2 * i + 1]) * std::polar(1.0, static_cast<double>(angles[i]));
    // cos and sin are rounded, then two products and a sum: 4 roundings of at most |x|.
    EXPECT_NEAR(y[2 * i], turned.real(), 4 * 0x1p-24 * 6.0);
    EXPECT_NEAR(y[2 * i + 1], turned.imag(), 4 * 0x1p-24 * 6.0);
  }
  EXPECT_EQ(y[0], 1.0f);
  EXPECT_EQ(y[6], 99.0f);
}

TEST(Rotate, TurnsHalvesAsItTurnsPairs) {
  const float cos[] = {0.5f, -0.25f, 1.0f}, sin[] = {0.875f, 0.75f, 0.0f};
  float pairs[6] = {1.0f, 2.0f, -3.0f, 0.5f, 4.0f, -1.5f};
  float halves[6];
  for (int i = 0; i < 6; ++i) halves[i % 2 * 3 + i / 2] = pairs[i];
  rotate_pairs(pairs, cos, sin, 3);
  rotate_halves(halves, cos, sin, 3);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(halves[i % 2 * 3 + i / 2], pairs[i]) << i;
}

}  // namespace
}  // namespace moraine::cpu
