#pragma once

#include <cstdint>

namespace moraine::cpu {

/// f32 rows in memory: `stride` floats apart, or picked from there by `index`.
struct RowView {
  const float* data = nullptr;
  int64_t stride = 0;
  const int32_t* index = nullptr;

  const float* row(int64_t i) const { return data + (index == nullptr ? i : index[i]) * stride; }
  /// The rows from `first` on.
  RowView from(int64_t first) const {
    return index == nullptr ? RowView{data + first * stride, stride, nullptr} : RowView{data, stride, index + first};
  }
};

}  // namespace moraine::cpu
