#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "offload/expert_id.h"

namespace moraine::runtime {

/// How often what was guessed of a layer was wanted: for every place in a step from which guesses are made, and for
/// every rank of its lists, a decaying mean. Tells how many of the likeliest are worth a read, so that guesses from
/// afar, which are good in one model and bad in another, cost nothing where they are bad.
class GuessPrecision {
 public:
  /// `most`: ranks of a list that are looked at.
  explicit GuessPrecision(int32_t most) : most_(most) {}

  /// The first ranks of this place's lists that are worth a read: nearly half of them, or more, were wanted of late.
  /// At first all.
  int32_t worth_reading(int place) const;
  /// Whether a guess is worth its computation: something would be read, or it is time to see again if it should be.
  bool wants_guess(int place);
  /// What was guessed at `place`, likeliest first.
  void guessed(int place, std::span<const offload::ExpertId> likely);
  /// What a layer wants, now that it is known, ascending. Judges the guesses made of it.
  void wanted(std::span<const offload::ExpertId> experts);

 private:
  struct Place {
    std::vector<double> precision = {};           // [most_]
    std::vector<offload::ExpertId> guessed = {};  // not judged yet
    int passed = 0;                               // times in a row that it was not worth a guess
  };
  Place& at(int place);

  const int32_t most_;
  std::vector<Place> places_;
};

}  // namespace moraine::runtime
