#include "runtime/guess_precision.h"

#include <algorithm>

namespace moraine::runtime {
namespace {

constexpr double kNewShare = 0.05;       // of a decaying mean: about the last twenty guesses count
constexpr double kLeastPrecision = 0.4;  // a wrong guess may delay what is wanted by what is under way of it
constexpr int kLookAgainAfter = 16;

}  // namespace

GuessPrecision::Place& GuessPrecision::at(int place) {
  const auto index = static_cast<size_t>(place);
  if (index >= places_.size()) places_.resize(index + 1);
  if (places_[index].precision.empty()) places_[index].precision.assign(static_cast<size_t>(most_), 1.0);
  return places_[index];
}

int32_t GuessPrecision::worth_reading(int place) const {
  const auto index = static_cast<size_t>(place);
  if (index >= places_.size() || places_[index].precision.empty()) return most_;
  const std::vector<double>& precision = places_[index].precision;
  const auto first_bad =
      std::find_if(precision.begin(), precision.end(), [](double share) { return share < kLeastPrecision; });
  return static_cast<int32_t>(first_bad - precision.begin());
}

bool GuessPrecision::wants_guess(int place) {
  if (worth_reading(place) > 0) return true;
  return ++at(place).passed % kLookAgainAfter == 0;
}

void GuessPrecision::guessed(int place, std::span<const offload::ExpertId> likely) {
  at(place).guessed.assign(likely.begin(), likely.end());
}

void GuessPrecision::wanted(std::span<const offload::ExpertId> experts) {
  if (experts.empty()) return;
  for (Place& place : places_) {
    if (place.guessed.empty() || place.guessed.front().layer != experts.front().layer) continue;
    const size_t judged = std::min(place.guessed.size(), place.precision.size());
    for (size_t rank = 0; rank < judged; ++rank) {
      const bool is_right = std::binary_search(experts.begin(), experts.end(), place.guessed[rank]);
      place.precision[rank] += kNewShare * ((is_right ? 1.0 : 0.0) - place.precision[rank]);
    }
    place.guessed.clear();
  }
}

}  // namespace moraine::runtime
