#include "runtime/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quant/error.h"

namespace moraine::runtime {

void SamplingOptions::validate() const {
  std::string faults;
  const auto check = [&](bool fine, const char* text) {
    if (!fine) faults += (faults.empty() ? "" : "; ") + std::string(text);
  };
  check(temperature >= 0.0 && temperature <= 100.0, "temperature must be 0 to 100");
  check(top_k >= 0, "top-k must be 0 (all) or more");
  check(top_p > 0.0 && top_p <= 1.0, "top-p must be above 0 and at most 1");
  check(min_p >= 0.0 && min_p <= 1.0, "min-p must be 0 to 1");
  if (!faults.empty()) throw quant::Error(quant::ErrorKind::kUsage, {.what = "sampling: " + faults});
}

int32_t argmax_token(std::span<const float> logits, int32_t vocab_size) {
  const auto end = logits.begin() + std::min<ptrdiff_t>(vocab_size, static_cast<ptrdiff_t>(logits.size()));
  return static_cast<int32_t>(std::max_element(logits.begin(), end) - logits.begin());
}

Sampler::Sampler(const SamplingOptions& options, int32_t vocab_size)
    : options_(options), vocab_size_(vocab_size), state_(options.seed) {
  options_.validate();
}

double Sampler::uniform() {
  // SplitMix64 (Steele, Lea, Flood 2014): the same sequence everywhere, unlike the standard library's distributions.
  state_ += 0x9e3779b97f4a7c15u;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

int32_t Sampler::sample(std::span<const float> logits) {
  if (options_.temperature == 0.0) return argmax_token(logits, vocab_size_);
  const auto vocab = std::min<size_t>(static_cast<size_t>(vocab_size_), logits.size());

  order_.resize(vocab);
  for (size_t i = 0; i < vocab; ++i) order_[i] = static_cast<int32_t>(i);
  const auto likelier = [&](int32_t a, int32_t b) {
    const float logit_a = logits[static_cast<size_t>(a)];
    const float logit_b = logits[static_cast<size_t>(b)];
    return logit_a != logit_b ? logit_a > logit_b : a < b;
  };
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < vocab) {
    std::partial_sort(order_.begin(), order_.begin() + options_.top_k, order_.end(), likelier);
    order_.resize(static_cast<size_t>(options_.top_k));
  } else {
    std::sort(order_.begin(), order_.end(), likelier);
  }

  const double best = logits[static_cast<size_t>(order_[0])];
  weight_.resize(order_.size());
  double total = 0.0;
  for (size_t i = 0; i < order_.size(); ++i) {
    weight_[i] = std::exp((static_cast<double>(logits[static_cast<size_t>(order_[i])]) - best) / options_.temperature);
    total += weight_[i];
  }
  size_t kept = 0;
  double kept_total = 0.0;
  while (kept < weight_.size() && (kept == 0 || kept_total < options_.top_p * total)) kept_total += weight_[kept++];
  while (kept > 1 && weight_[kept - 1] < options_.min_p * weight_[0]) kept_total -= weight_[--kept];

  double remaining = uniform() * kept_total;
  for (size_t i = 0; i + 1 < kept; ++i) {
    remaining -= weight_[i];
    if (remaining < 0.0) return order_[i];
  }
  return order_[kept - 1];
}

}  // namespace moraine::runtime
