#include "quant/block_codes.h"
#include "quant/quantize_block.h"
#include "quant/quantize_search.h"

// Super-blocks whose groups have a scale and a minimum: Q2_K, Q4_K, Q5_K.
namespace moraine::quant {
namespace {

using namespace quantize_detail;

/// Candidates for the code of a group's largest element above its smallest: from room above to hard clipping.
constexpr std::array<float, 24> kQ2_KTargets = {2.0f, 2.1f, 2.2f, 2.3f, 2.4f, 2.5f, 2.6f, 2.7f, 2.8f, 2.9f, 3.0f, 3.1f,
                                                3.2f, 3.3f, 3.4f, 3.5f, 3.6f, 3.7f, 3.8f, 3.9f, 4.0f, 4.2f, 4.4f, 4.6f};
constexpr std::array<float, 24> kQ4_KTargets = {13.6f, 13.8f, 14.0f, 14.2f, 14.4f, 14.6f, 14.8f, 15.0f,
                                                15.1f, 15.2f, 15.3f, 15.4f, 15.5f, 15.6f, 15.7f, 15.8f,
                                                15.9f, 16.0f, 16.2f, 16.4f, 16.6f, 16.8f, 17.1f, 17.4f};
constexpr std::array<float, 16> kQ5_KTargets = {29.4f, 29.8f, 30.2f, 30.5f, 30.7f, 30.9f, 31.0f, 31.1f,
                                                31.2f, 31.4f, 31.6f, 31.8f, 32.0f, 32.3f, 32.6f, 33.0f};

/// The numbers of a format: `kGroup` weights per group, codes 0 … kMaxCode, scales and minima 0 … kMaxScale in units of
/// d and dmin. Each round looks at the neighbouring pairs of scale and minimum and then fits d and dmin.
template <int kGroupElements, int kLargestCode, int kLargestScale, int kSearchRounds>
struct AffineFormat {
  static constexpr int kGroup = kGroupElements;
  static constexpr int kGroups = 256 / kGroup;
  static constexpr float kMaxCode = kLargestCode;
  static constexpr int kMaxScale = kLargestScale;
  static constexpr int kRounds = kSearchRounds;
};

/// A group's scale and minimum in units of d and dmin, nearest first guess.
template <class Format>
ScaleMin to_units(const Affine& group, float inverse_d, float inverse_dmin) {
  constexpr float kMax = Format::kMaxScale;
  return {static_cast<uint8_t>(round_small(clamp(group.scale * inverse_d, 0.0f, kMax))),
          static_cast<uint8_t>(round_small(clamp(group.min * inverse_dmin, 0.0f, kMax)))};
}

/// Steps around a group's first guess of scale and minimum that best_neighbour() tries. A larger scale goes with a
/// larger minimum, so the pair that moves them furthest apart is left out.
constexpr std::array<std::array<int, 2>, 8> kNeighbours = {
    {{0, 0}, {1, 1}, {-1, -1}, {1, 0}, {-1, 0}, {0, 1}, {0, -1}, {-1, 1}}};

/// The best neighbour of `guess` by the squared error that decoding the group x will have: rounding scale and minimum
/// one by one is not the best pair.
template <class Format>
ScaleMin best_neighbour(const float* x, ScaleMin guess, float d, float dmin) {
  std::array<ScaleMin, 8> pairs;
  std::array<float, 8> scales, inverses, mins, errors;
  for (size_t k = 0; k < 8; ++k) {
    const int s = std::clamp(guess.scale + kNeighbours[k][0], 0, Format::kMaxScale);
    const int m = std::clamp(guess.min + kNeighbours[k][1], 0, Format::kMaxScale);
    pairs[k] = {static_cast<uint8_t>(s), static_cast<uint8_t>(m)};
    scales[k] = d * static_cast<float>(s);
    inverses[k] = reciprocal_or_zero(scales[k]);
    mins[k] = dmin * static_cast<float>(m);
  }
  std::array<Lanes, 2> scale, inverse, min, error{};
  std::memcpy(scale.data(), scales.data(), sizeof(scale));
  std::memcpy(inverse.data(), inverses.data(), sizeof(inverse));
  std::memcpy(min.data(), mins.data(), sizeof(min));
  for (int i = 0; i < Format::kGroup; ++i) {
    const Lanes value = broadcast(x[i]);
    for (size_t h = 0; h < 2; ++h) {
      const Lanes q = nearest_code((value + min[h]) * inverse[h], broadcast(0.0f), broadcast(Format::kMaxCode));
      const Lanes difference = scale[h] * q - min[h] - value;
      error[h] += difference * difference;
    }
  }
  std::memcpy(errors.data(), error.data(), sizeof(error));
  return pairs[static_cast<size_t>(std::min_element(errors.begin(), errors.end()) - errors.begin())];
}

/// x [256] → codes [256], the nearest for these scales.
template <class Format>
void choose_codes(const float* x, const ScaleMin* groups, float d, float dmin, float* codes) {
  for (int g = 0; g < Format::kGroups; ++g) {
    const float inverse = reciprocal_or_zero(d * static_cast<float>(groups[g].scale));
    const float min = dmin * static_cast<float>(groups[g].min);
    for (int i = Format::kGroup * g; i < Format::kGroup * (g + 1); ++i) {
      codes[i] = round_small(clamp((x[i] + min) * inverse, 0.0f, Format::kMaxCode));
    }
  }
}

/// With codes and small numbers fixed, x ≈ d·u − dmin·v is a linear regression in d and dmin. Leaves both alone where
/// it has no solution with both not negative.
template <class Format>
void fit_units(const float* x, const ScaleMin* groups, const float* codes, float& d, float& dmin) {
  double uu = 0, uv = 0, vv = 0, xu = 0, xv = 0;
  for (int g = 0; g < Format::kGroups; ++g) {
    float sum_q = 0, sum_qq = 0, sum_xq = 0, sum_x = 0;
    for (int i = Format::kGroup * g; i < Format::kGroup * (g + 1); ++i) {
      sum_q += codes[i];
      sum_qq += codes[i] * codes[i];
      sum_xq += x[i] * codes[i];
      sum_x += x[i];
    }
    const double s = groups[g].scale;
    const double m = groups[g].min;
    uu += s * s * sum_qq;
    uv += s * m * sum_q;
    vv += Format::kGroup * m * m;
    xu += s * sum_xq;
    xv += m * sum_x;
  }
  const double determinant = uu * vv - uv * uv;
  if (determinant <= 0) {
    if (uu > 0 && vv == 0 && xu > 0) d = static_cast<float>(xu / uu);
    return;
  }
  const double fitted_d = (xu * vv - uv * xv) / determinant;
  const double fitted_dmin = (xu * uv - uu * xv) / determinant;
  if (fitted_d < 0 || fitted_dmin < 0) return;
  d = static_cast<float>(fitted_d);
  dmin = static_cast<float>(fitted_dmin);
}

/// Sets d, dmin, the codes and `groups` [Format::kGroups]; false if x can't be represented.
template <class Format, typename Block, size_t K>
bool quantize_super(const float* x, const std::array<float, K>& targets, Block& block, ScaleMin* groups) {
  constexpr float kReach = (Format::kMaxScale + 1) / 2;  // the minimum takes this and more, the scale twice as much
  if (!(largest_magnitude(x, 256) <= kReach * kF16Max)) return false;
  constexpr auto kGroups = static_cast<size_t>(Format::kGroups);
  std::array<Affine, kGroups> fits;
  float largest_scale = 0.0f;
  float largest_min = 0.0f;
  for (size_t g = 0; g < kGroups; ++g) {
    fits[g] = search_affine<Format::kGroup, false>(x + Format::kGroup * g, targets, Format::kMaxCode);
    largest_scale = std::max(largest_scale, fits[g].scale);
    largest_min = std::max(largest_min, fits[g].min);
  }
  block.d = f16_step(largest_scale, Format::kMaxScale);
  block.dmin = f16_step(largest_min, Format::kMaxScale);
  float codes[256];
  for (int round = 0; round < Format::kRounds; ++round) {
    float d = f32_from_f16(block.d);
    float dmin = f32_from_f16(block.dmin);
    for (size_t g = 0; g < kGroups; ++g) {
      groups[g] = to_units<Format>(fits[g], reciprocal_or_zero(d), reciprocal_or_zero(dmin));
      groups[g] = best_neighbour<Format>(x + Format::kGroup * g, groups[g], d, dmin);
    }
    choose_codes<Format>(x, groups, d, dmin, codes);
    if (d < kFinelyRounded) break;
    fit_units<Format>(x, groups, codes, d, dmin);
    block.d = f16_from_f32(std::min(d, kF16Max));
    block.dmin = f16_from_f32(std::min(dmin, kF16Max));
    choose_codes<Format>(x, groups, f32_from_f16(block.d), f32_from_f16(block.dmin), codes);
  }
  uint8_t bytes[256];
  for (int i = 0; i < 256; ++i) bytes[i] = static_cast<uint8_t>(codes[i]);
  write_codes(bytes, block);
  return true;
}

}  // namespace

bool quantize_block(const float* x, BlockQ2_K& block) {
  ScaleMin groups[16];
  if (!quantize_super<AffineFormat<16, 3, 15, 3>>(x, kQ2_KTargets, block, groups)) return false;
  for (int g = 0; g < 16; ++g) block.scales[g] = static_cast<uint8_t>(groups[g].scale | groups[g].min << 4);
  return true;
}

bool quantize_block(const float* x, BlockQ4_K& block) {
  ScaleMin groups[8];
  if (!quantize_super<AffineFormat<32, 15, 63, 1>>(x, kQ4_KTargets, block, groups)) return false;
  q4_k_store_scale_mins(groups, block.scales);
  return true;
}

bool quantize_block(const float* x, BlockQ5_K& block) {
  ScaleMin groups[8];
  if (!quantize_super<AffineFormat<32, 31, 63, 1>>(x, kQ5_KTargets, block, groups)) return false;
  q4_k_store_scale_mins(groups, block.scales);
  return true;
}

}  // namespace moraine::quant
