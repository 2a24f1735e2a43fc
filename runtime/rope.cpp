#include "runtime/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace moraine::runtime {
namespace {

/// The (fractional) pair index whose wavelength makes `rotations` turns within the original context.
double correction_dim(double rotations, const ModelConfig& config) {
  const double dim = static_cast<double>(config.qk_rope_head_dim);
  const double context = static_cast<double>(config.rope_scaling.original_max_position_embeddings);
  return dim * std::log(context / (rotations * 2.0 * std::numbers::pi)) / (2.0 * std::log(config.rope_theta));
}

}  // namespace

RopeTable::RopeTable(const ModelConfig& config) {
  const int64_t dim = config.qk_rope_head_dim;
  const RopeScaling& scaling = config.rope_scaling;
  double low = 0.0;
  double high = 0.0;
  if (scaling.yarn) {
    low = std::max(std::floor(correction_dim(scaling.beta_fast, config)), 0.0);
    high = std::min(std::ceil(correction_dim(scaling.beta_slow, config)), static_cast<double>(dim - 1));
    if (low == high) high += 0.001;
    // A config without mscale_all_dim puts the whole correction on cos and sin (transformers, modeling_rope_utils).
    multiplier_ = scaling.mscale_all_dim != 0.0 ? yarn_mscale(scaling.factor, scaling.mscale) /
                                                      yarn_mscale(scaling.factor, scaling.mscale_all_dim)
                                                : yarn_mscale(scaling.factor, 1.0);
  }
  for (int64_t pair = 0; pair < dim / 2; ++pair) {
    const double extrapolated =
        std::pow(config.rope_theta, -2.0 * static_cast<double>(pair) / static_cast<double>(dim));
    if (!scaling.yarn) {
      frequencies_.push_back(extrapolated);
      continue;
    }
    const double ramp = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
    frequencies_.push_back(extrapolated / scaling.factor * ramp + extrapolated * (1.0 - ramp));
  }
}

void RopeTable::cos_sin(int64_t position, std::span<float> cos, std::span<float> sin) const {
  for (size_t pair = 0; pair < frequencies_.size(); ++pair) {
    const double angle = static_cast<double>(position) * frequencies_[pair];
    cos[pair] = static_cast<float>(std::cos(angle) * multiplier_);
    sin[pair] = static_cast<float>(std::sin(angle) * multiplier_);
  }
}

}  // namespace moraine::runtime
