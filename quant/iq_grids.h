#pragma once

#include <array>
#include <bit>
#include <cstdint>

/// The tables of the grid formats (quant/grid_formats.h): each entry is 8 (or 4) weights as int8, the first in the
/// lowest byte. IQ1_M uses the grid of IQ1_S.
namespace moraine::quant {

extern const std::array<uint64_t, 256> kIq2XxsGrid;  // 8, 25, 43
extern const std::array<uint64_t, 512> kIq2XsGrid;   // 8, 25, 43
extern const std::array<uint64_t, 1024> kIq2SGrid;   // 8, 25, 43
extern const std::array<uint32_t, 256> kIq3XxsGrid;  // 4, 12, … 52, 62
extern const std::array<uint32_t, 512> kIq3SGrid;    // odd, 1 … 15
extern const std::array<uint64_t, 2048> kIq1SGrid;   // −1, 0, 1

/// The sign bits (1: negative) of 8 weights from 7: the eighth makes their number even.
constexpr uint8_t even_signs(uint32_t seven) {
  return static_cast<uint8_t>(seven | static_cast<uint32_t>(std::popcount(seven) & 1) << 7);
}

}  // namespace moraine::quant
