#include "tools/random_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "quant/block_formats.h"
#include "quant/checksum.h"
#include "quant/dequantize.h"
#include "quant/error.h"
#include "quant/packed_blocks.h"
#include "quant/visit_block_format.h"

namespace moraine::tools {
namespace {

using quant::DType;
using quant::kRowGroup;

constexpr size_t kPieceBytes = 4096;  // stays in L1 between two passes

// Standard deviations of random codes, each drawn evenly.
constexpr float kQ8_0Deviation = 73.6f;   // −127 … 127
constexpr float kQ4_0Deviation = 4.64f;   // −8 … 7 around 0
constexpr float kQ4_KDeviation = 168.3f;  // scale 0 … 63 times (code − 7.5)
constexpr float kIq4Deviation = 67.4f;    // kIq4Values
constexpr float kSixBits = 18.48f;        // −32 … 31 around 0

/// The deviation of weights with d = 1, all codes and scales random, minima as random_block() sets them.
constexpr float deviation_of(const quant::BlockQ4_0&) {
  return kQ4_0Deviation;
}
constexpr float deviation_of(const quant::BlockQ4_1&) {
  return 4.61f;
}
constexpr float deviation_of(const quant::BlockQ5_0&) {
  return 9.25f;
}
constexpr float deviation_of(const quant::BlockQ5_1&) {
  return 9.23f;
}
constexpr float deviation_of(const quant::BlockQ2_K&) {
  return 8.80f * 1.118f;  // scale 0 … 15 times (code − 1.5)
}
constexpr float deviation_of(const quant::BlockQ3_K&) {
  return kSixBits * 2.345f;  // code −4 … 3
}
constexpr float deviation_of(const quant::BlockQ4_K&) {
  return kQ4_KDeviation;
}
constexpr float deviation_of(const quant::BlockQ5_K&) {
  return 336.0f;  // scale 0 … 63 times (code − 15.5)
}
constexpr float deviation_of(const quant::BlockQ6_K&) {
  return 73.9f * kSixBits;
}
constexpr float deviation_of(const quant::BlockIQ4_NL&) {
  return kIq4Deviation;
}
constexpr float deviation_of(const quant::BlockIQ4_XS&) {
  return kSixBits * kIq4Deviation;
}

template <typename Block>
concept HasDeviation = requires(Block block) {
  deviation_of(block);
};

/// SplitMix64's mixing of a counter.
uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// An f16 near `value` with 7 significant bits: 7.5 times it is an f16 too.
uint16_t short_f16(float value) {
  int exponent = 0;
  const float fraction = std::frexp(value, &exponent);
  return quant::f16_from_f32(std::ldexp(std::round(fraction * 128.0f) / 128.0f, exponent));
}

/// Scales of blocks, a random three bits choosing one: within a quarter of each other, as real ones are.
struct ScaleTable {
  std::array<uint16_t, 16> d;     // f16; the upper eight have the other sign if `signs`
  std::array<uint16_t, 16> dmin;  // f16, 7.5 · d

  ScaleTable(float mean, bool signs) {
    for (size_t i = 0; i < d.size(); ++i) {
      const float factor = 0.78125f + 0.0625f * static_cast<float>(i % 8);  // 0.78 … 1.22, mean 1
      d[i] = short_f16(mean * factor * (signs && i >= 8 ? -1.0f : 1.0f));
      dmin[i] = quant::f16_from_f32(7.5f * quant::f32_from_f16(d[i]));
    }
  }
  static size_t index(std::byte random) { return static_cast<size_t>(random) & 15; }
};

void store(uint16_t value, std::byte* to) {
  std::memcpy(to, &value, sizeof value);
}

/// A bell of mean 0 and deviation 1: the sum of the four bytes of a random number.
float bell(uint32_t random) {
  constexpr float kMean = 510.0f, kDeviation = 147.8f;
  const uint32_t sum = (random & 255) + ((random >> 8) & 255) + ((random >> 16) & 255) + (random >> 24);
  return (static_cast<float>(sum) - kMean) * (1.0f / kDeviation);
}

/// out[i] = convert(bell-shaped f32), four random bytes each.
template <typename Stored, typename Convert>
void fill_plain(LaneRandom& random, const Spread& spread, std::span<std::byte> out, Convert convert) {
  constexpr size_t kCount = kPieceBytes / sizeof(uint32_t);
  uint32_t source[kCount];
  Stored piece[kCount];
  for (size_t done = 0; done < out.size(); done += sizeof piece) {
    random.fill(std::as_writable_bytes(std::span(source)));
    for (size_t i = 0; i < kCount; ++i) piece[i] = convert(spread.mean + spread.deviation * bell(source[i]));
    std::memcpy(out.data() + done, piece, std::min(sizeof piece, out.size() - done));
  }
}

void fill_f32(LaneRandom& random, const Spread& spread, std::span<std::byte> out) {
  fill_plain<float>(random, spread, out, [](float value) { return value; });
}

void fill_bf16(LaneRandom& random, const Spread& spread, std::span<std::byte> out) {
  fill_plain<uint16_t>(random, spread, out, [](float value) {
    return static_cast<uint16_t>((std::bit_cast<uint32_t>(value) + 0x8000) >> 16);  // finite, and ties do not matter
  });
}

/// Calls edit(byte) for every byte after filling, piece by piece.
template <typename Edit>
void fill_bytes(LaneRandom& random, std::span<std::byte> out, Edit edit) {
  for (size_t done = 0; done < out.size(); done += kPieceBytes) {
    const auto piece = out.subspan(done, std::min(kPieceBytes, out.size() - done));
    random.fill(piece);
    auto* bytes = reinterpret_cast<uint8_t*>(piece.data());
    for (size_t i = 0; i < piece.size(); ++i) bytes[i] = edit(bytes[i]);
  }
}

/// Magnitudes of 2 to 448 in every octave alike, as weights scaled to the format's range have them.
void fill_e4m3(LaneRandom& random, std::span<std::byte> out) {
  fill_bytes(random, out, [](uint8_t byte) {
    const auto value = static_cast<uint8_t>(byte | 0x40);
    return static_cast<uint8_t>(value - ((value & 0x7f) == 0x7f));  // not NaN
  });
}

/// Codes of Q8_0: −128 is left out, as quantizers do.
void fill_int8(LaneRandom& random, std::span<std::byte> out) {
  fill_bytes(random, out, [](uint8_t byte) { return static_cast<uint8_t>(byte + (byte == 0x80)); });
}

void fill_scales(LaneRandom& random, const ScaleTable& scales, std::span<std::byte> out) {
  random.fill(out);
  for (size_t at = 0; at < out.size(); at += 2) store(scales.d[ScaleTable::index(out[at])], out.data() + at);
}

void fill_q8_0_rows(LaneRandom& random, float deviation, std::span<std::byte> out) {
  const ScaleTable scales(deviation / kQ8_0Deviation, false);
  fill_int8(random, out);
  for (size_t at = 0; at < out.size(); at += sizeof(quant::BlockQ8_0)) {
    store(scales.d[ScaleTable::index(out[at])], out.data() + at);
  }
}

/// A super-block of 16 rows: every group's minimum is 7.5 times its scale, so that codes lie around 0.
void fill_q4_k(LaneRandom& random, float deviation, std::span<std::byte> out) {
  constexpr size_t kSuperBytes = sizeof(quant::BlockQ4_K) * kRowGroup;
  constexpr size_t kDmin = 2 * kRowGroup, kBytes = 4 * kRowGroup;
  const ScaleTable scales(deviation / kQ4_KDeviation, false);
  for (size_t at = 0; at < out.size(); at += kSuperBytes) {
    const auto super = out.subspan(at, kSuperBytes);
    random.fill(super);
    for (size_t r = 0; r < kRowGroup; ++r) {
      const size_t index = ScaleTable::index(super[2 * r]);
      store(scales.d[index], super.data() + 2 * r);
      store(scales.dmin[index], super.data() + kDmin + 2 * r);
    }
    // Bytes 0–3 of a row have the scales of groups 0–3 and high bits of 4–7, bytes 4–7 the same of the minima; bytes
    // 8–11 have the low bits of both (quant/block_formats.h). [12][16 rows]
    auto* bytes = reinterpret_cast<uint8_t*>(super.data() + kBytes);
    std::memcpy(bytes + 4 * kRowGroup, bytes, 4 * kRowGroup);
    for (size_t i = 8 * kRowGroup; i < 12 * kRowGroup; ++i) bytes[i] = static_cast<uint8_t>((bytes[i] & 15) * 0x11);
  }
}

/// Random codes and scales; minima such that codes lie around 0.
template <typename Block>
void random_block(LaneRandom& random, const ScaleTable& scales, Block& block) {
  random.fill(std::as_writable_bytes(std::span(&block, 1)));
  block.d = scales.d[block.d & 15];
  const float d = quant::f32_from_f16(block.d);
  if constexpr (std::is_same_v<Block, quant::BlockQ4_1>) block.m = quant::f16_from_f32(-7.5f * d);
  if constexpr (std::is_same_v<Block, quant::BlockQ5_1>) block.m = quant::f16_from_f32(-15.5f * d);
  if constexpr (std::is_same_v<Block, quant::BlockQ2_K>) {
    block.dmin = quant::f16_from_f32(1.5f * d);
    for (uint8_t& both : block.scales) both = static_cast<uint8_t>((both & 15) * 0x11);
  }
  constexpr bool kIsQ4_K = std::is_same_v<Block, quant::BlockQ4_K>;
  if constexpr (kIsQ4_K || std::is_same_v<Block, quant::BlockQ5_K>) {
    block.dmin = quant::f16_from_f32((kIsQ4_K ? 7.5f : 15.5f) * d);
    quant::ScaleMin groups[8];
    for (int b = 0; b < 8; ++b) {
      groups[b].scale = quant::q4_k_scale_min(block.scales, b).scale;
      groups[b].min = groups[b].scale;
    }
    quant::q4_k_store_scale_mins(groups, block.scales);
  }
}

/// Calls make(block, scales) with the block form of `type`, one of those that are made block by block.
template <typename Make>
void with_random_block(DType type, float deviation, Make make) {
  quant::visit_block_format(
      type,
      [&]<typename Block>(Block block) {
        if constexpr (HasDeviation<Block>) {
          // These codes do not lie around 0: signs do it.
          constexpr bool kSigns = std::is_same_v<Block, quant::BlockQ4_0> || std::is_same_v<Block, quant::BlockQ5_0> ||
                                  std::is_same_v<Block, quant::BlockIQ4_NL>;
          make(block, ScaleTable(deviation / deviation_of(block), kSigns));
        } else {
          MORAINE_CHECK(!"a format that random weights are made of");
        }
      },
      [] { MORAINE_CHECK(!"a format that random weights are made of"); });
}

void fill_blocks(LaneRandom& random, DType type, float deviation, std::span<std::byte> out) {
  with_random_block(type, deviation, [&]<typename Block>(Block block, const ScaleTable& scales) {
    for (size_t at = 0; at < out.size(); at += sizeof(Block)) {
      random_block(random, scales, block);
      std::memcpy(out.data() + at, &block, sizeof(Block));
    }
  });
}

void fill_packed_blocks(LaneRandom& random, const quant::MatrixDesc& matrix, float deviation,
                        std::span<std::byte> out) {
  std::fill(out.begin(), out.end(), std::byte{0});
  const uint64_t group_bytes = quant::packed_group_bytes(matrix.type, matrix.cols);
  with_random_block(matrix.type, deviation, [&]<typename Block>(Block block, const ScaleTable& scales) {
    for (uint64_t at = 0; at < out.size(); at += group_bytes) {
      for (int64_t b = 0; b < matrix.cols / Block::kElements; ++b) {
        for (int64_t r = 0; r < kRowGroup; ++r) {
          random_block(random, scales, block);
          quant::scatter(block, out.data() + at, matrix.cols, b, r);
        }
      }
    }
  });
}

}  // namespace

LaneRandom::LaneRandom(uint64_t seed, std::string_view name) {
  const std::string text = fmt::format("{} {}", seed, name);
  const uint64_t start = quant::checksum(std::as_bytes(std::span(text)));
  for (size_t i = 0; i < lanes_.size(); ++i) {
    lanes_[i] = mixed(start + (i + 1) * 0x9e3779b97f4a7c15u) | 1;  // never 0, where xorshift stays
  }
}

void LaneRandom::fill(std::span<std::byte> out) {
  std::array<uint64_t, 8> lanes = lanes_;
  const auto step = [&lanes] {
    for (uint64_t& x : lanes) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
    }
  };
  size_t at = 0;
  for (; at + sizeof lanes <= out.size(); at += sizeof lanes) {
    step();
    std::memcpy(out.data() + at, lanes.data(), sizeof lanes);
  }
  if (at < out.size()) {
    step();
    std::memcpy(out.data() + at, lanes.data(), out.size() - at);
  }
  lanes_ = lanes;
}

void fill_tensor(LaneRandom& random, DType type, const Spread& spread, std::span<std::byte> out) {
  switch (type) {
    case DType::kF32:
      return fill_f32(random, spread, out);
    case DType::kBF16:
      return fill_bf16(random, spread, out);
    case DType::kF8E4M3:
      return fill_e4m3(random, out);
    case DType::kQ8_0:
      return fill_q8_0_rows(random, spread.deviation, out);
    default:
      return fill_blocks(random, type, spread.deviation, out);
  }
}

void fill_packed(LaneRandom& random, const quant::MatrixDesc& matrix, float deviation, std::span<std::byte> out) {
  MORAINE_CHECK(matrix.rows % kRowGroup == 0 && out.size() == packed_bytes(matrix.type, matrix.rows, matrix.cols));
  if (matrix.type == DType::kBF16) {
    MORAINE_CHECK(matrix.cols % 2 == 0);  // no padding: the packed order is one run of numbers
    return fill_bf16(random, {.deviation = deviation}, out);
  }
  if (matrix.type == DType::kQ4_K) return fill_q4_k(random, deviation, out);
  if (matrix.type == DType::kF8E4M3) {
    const uint64_t scales_offset = quant::packed_fp8_scales_offset(matrix.rows, matrix.cols);
    const float scale = deviation / kE4m3Deviation;
    fill_e4m3(random, out.first(scales_offset));
    return fill_f32(random, {.mean = scale, .deviation = scale / 10}, out.subspan(scales_offset));
  }
  if (matrix.type != DType::kQ8_0 && matrix.type != DType::kQ4_0) {
    return fill_packed_blocks(random, matrix, deviation, out);
  }
  const bool is_q8_0 = matrix.type == DType::kQ8_0;
  const ScaleTable scales(deviation / (is_q8_0 ? kQ8_0Deviation : kQ4_0Deviation), !is_q8_0);
  const uint64_t group_bytes = quant::packed_group_bytes(matrix.type, matrix.cols);
  const auto code_bytes = static_cast<uint64_t>(is_q8_0 ? matrix.cols : matrix.cols / 2) * kRowGroup;
  const auto scale_bytes = static_cast<uint64_t>(matrix.cols / quant::BlockQ8_0::kElements) * kRowGroup * 2;
  for (uint64_t at = 0; at < out.size(); at += group_bytes) {
    const auto codes = out.subspan(at, code_bytes);
    is_q8_0 ? fill_int8(random, codes) : random.fill(codes);
    fill_scales(random, scales, out.subspan(at + code_bytes, scale_bytes));
  }
}

}  // namespace moraine::tools
