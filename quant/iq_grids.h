#pragma once

#include <cstddef>
#include <cstdint>

/// The tables of the grid formats (quant/grid_formats.h): each entry is 8 (or 4) weights as int8, the first in the
/// lowest byte. IQ1_M uses the grid of IQ1_S.
namespace moraine::quant {

/// An array without functions, because code for several instruction sets reads it.
template <typename Row, size_t kCount>
struct LookUp {
  Row rows[kCount];
};

extern const LookUp<uint64_t, 256> kIq2XxsGrid;  // 8, 25, 43
extern const LookUp<uint64_t, 512> kIq2XsGrid;   // 8, 25, 43
extern const LookUp<uint64_t, 1024> kIq2SGrid;   // 8, 25, 43
extern const LookUp<uint32_t, 256> kIq3XxsGrid;  // 4, 12, … 52, 62
extern const LookUp<uint32_t, 512> kIq3SGrid;    // odd, 1 … 15
extern const LookUp<uint64_t, 2048> kIq1SGrid;   // −1, 0, 1

/// The sign bits (1: negative) of 8 weights from 7: the eighth makes their number even.
extern const LookUp<uint8_t, 128> kEvenSigns;
/// Byte i is 0xff where bit i of the index is set.
extern const LookUp<uint64_t, 256> kSignMasks;

}  // namespace moraine::quant
