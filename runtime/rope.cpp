#include "runtime/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace moraine::runtime {
namespace {

/// The (fractional) pair index whose wavelength makes `rotations` turns within the original context.
double correction_dim(double rotations, const ModelConfig& config) {
  const double dim = static_cast<double>(config.rope_dim());
  const double context = static_cast<double>(config.rope_scaling.original_max_position_embeddings);
  return dim * std::log(context / (rotations * 2.0 * std::numbers::pi)) / (2.0 * std::log(config.rope_theta));
}

/// YaRN: slow pairs are interpolated, fast ones left alone, a ramp between.
void scale_yarn(const ModelConfig& config, std::span<double> frequencies) {
  const RopeScaling& scaling = config.rope_scaling;
  const double low = std::max(std::floor(correction_dim(scaling.beta_fast, config)), 0.0);
  double high =
      std::min(std::ceil(correction_dim(scaling.beta_slow, config)), static_cast<double>(config.rope_dim() - 1));
  if (low == high) high += 0.001;
  for (size_t pair = 0; pair < frequencies.size(); ++pair) {
    const double extrapolated = frequencies[pair];
    const double ramp = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
    frequencies[pair] = extrapolated / scaling.factor * ramp + extrapolated * (1.0 - ramp);
  }
}

/// YaRN's factor on cos and sin. A config without mscale_all_dim puts the whole correction there (transformers,
/// modeling_rope_utils).
double yarn_multiplier(const RopeScaling& scaling) {
  return scaling.mscale_all_dim != 0.0
             ? yarn_mscale(scaling.factor, scaling.mscale) / yarn_mscale(scaling.factor, scaling.mscale_all_dim)
             : yarn_mscale(scaling.factor, 1.0);
}

/// Llama 3: wavelengths beyond the original context divided by `factor`, short ones left alone, a blend between.
void scale_llama3(const RopeScaling& scaling, std::span<double> frequencies) {
  const double context = static_cast<double>(scaling.original_max_position_embeddings);
  for (double& frequency : frequencies) {
    const double turns = context * frequency / (2.0 * std::numbers::pi);  // within the original context
    const double kept =
        std::clamp((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0.0, 1.0);
    frequency = (1.0 - kept) * frequency / scaling.factor + kept * frequency;
  }
}

}  // namespace

RopeTable::RopeTable(const ModelConfig& config) {
  const int64_t dim = config.rope_dim();
  for (int64_t pair = 0; pair < dim / 2; ++pair) {
    frequencies_.push_back(std::pow(config.rope_theta, -2.0 * static_cast<double>(pair) / static_cast<double>(dim)));
  }
  if (config.rope_scaling.type == RopeScaling::Type::kYarn) {
    scale_yarn(config, frequencies_);
    multiplier_ = yarn_multiplier(config.rope_scaling);
  } else if (config.rope_scaling.type == RopeScaling::Type::kLlama3) {
    scale_llama3(config.rope_scaling, frequencies_);
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
