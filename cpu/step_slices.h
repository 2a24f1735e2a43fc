#pragma once

#include <cstdint>
#include <vector>

#include "quant/error.h"
#include "runtime/backend.h"

namespace moraine::cpu {

/// The sequences of a step with their caches, which must all be `Cache`s.
template <class Cache>
class StepSlices {
 public:
  /// Rows of one sequence: batch rows [first_row, +row_count) at positions first_position and up.
  struct Slice {
    Cache* cache = nullptr;
    int64_t first_position = 0;
    int64_t first_row = 0;
    int64_t row_count = 0;
  };

  /// Takes the pages for the batch's tokens. Throws quant::Error(kNotEnough) if the memory can't be had.
  void begin(const runtime::StepBatch& batch) {
    slices_.clear();
    for (const runtime::SequenceSlice& slice : batch.slices) {
      auto* cache = dynamic_cast<Cache*>(slice.cache);
      MORAINE_CHECK(cache != nullptr && slice.first_position == cache->token_count());
      cache->reserve(slice.first_position + slice.row_count);
      slices_.push_back({cache, slice.first_position, slice.first_row, slice.row_count});
    }
    rows_ = static_cast<int64_t>(batch.token_ids.size());
  }
  /// Counts the batch's tokens in their caches.
  void commit() {
    for (const Slice& slice : slices_) slice.cache->commit(slice.first_position + slice.row_count);
  }

  int64_t rows() const { return rows_; }  ///< of all sequences
  auto begin() const { return slices_.begin(); }
  auto end() const { return slices_.end(); }

 private:
  std::vector<Slice> slices_;
  int64_t rows_ = 0;
};

}  // namespace moraine::cpu
