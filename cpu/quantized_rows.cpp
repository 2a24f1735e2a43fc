#include "cpu/quantized_rows.h"

#include <algorithm>

#include "quant/error.h"

namespace moraine::cpu {
namespace {

/// Rows of one task: quantizing 7168 values takes about 2 µs, no more than waking a thread.
constexpr int64_t kTaskRows = 8;

bool needs_pairs(const KernelTable& kernels, int64_t count) {
  return !kernels.int8_limbs || count <= kernels.int8_stream_rows;
}

}  // namespace

int64_t int8_rows_floats(const KernelTable& kernels, int64_t count, int64_t cols) {
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  const Int8Rows rows{.count = count, .cols = cols};
  const int64_t column_groups = count * rows.groups();
  const int64_t group_bytes = kInt8Columns * (needs_pairs(kernels, count) ? 3 : 1) + (16 + 8) * 2 + kFloat;
  // A matrix unit reads a tile's 16 rows where there are fewer.
  const int64_t behind = kernels.int8_limbs ? kInt8TileRows * kLanes : 0;
  return (column_groups * group_bytes / kFloat + behind + kLanes - 1) / kLanes * kLanes;  // whole cache lines
}

Int8Rows place_int8_rows(const KernelTable& kernels, float* memory, int64_t count, int64_t cols) {
  MORAINE_CHECK(cols % kBlockColumns == 0);
  Int8Rows rows{.count = count, .cols = cols};
  const int64_t column_groups = count * rows.groups();
  auto* next = reinterpret_cast<std::byte*>(memory);
  const auto take = [&](int64_t bytes) {
    std::byte* part = next;
    next += bytes;
    return part;
  };
  rows.q = reinterpret_cast<int8_t*>(take(column_groups * kInt8Columns));
  if (needs_pairs(kernels, count)) rows.pairs = reinterpret_cast<int16_t*>(take(column_groups * kInt8Columns * 2));
  rows.minus_sums = reinterpret_cast<int16_t*>(take(column_groups * 16 * 2));
  rows.minus_block_sums = reinterpret_cast<int16_t*>(take(column_groups * 8 * 2));
  rows.scales = reinterpret_cast<float*>(take(column_groups * static_cast<int64_t>(sizeof(float))));
  return rows;
}

size_t QuantizedRows::add(const RowView& x, int64_t count, int64_t cols) {
  std::vector<const float*> sources;
  for (int64_t t = 0; t < count; ++t) sources.push_back(x.row(t));
  if (sets_.empty() || sets_.back().sources != sources || sets_.back().rows.cols != cols) {
    sets_.push_back({.sources = std::move(sources), .rows = {.count = count, .cols = cols}});
  }
  return sets_.size() - 1;
}

void QuantizedRows::quantize(Workers& workers, FloatBuffer& memory) {
  int64_t floats = 0;
  for (const Set& set : sets_) floats += int8_rows_floats(workers.kernels(), set.rows.count, set.rows.cols);
  float* next = memory.get(floats);
  struct Part {
    const Set* set;
    int64_t first;
  };
  std::vector<Part> parts;
  for (Set& set : sets_) {
    set.rows = place_int8_rows(workers.kernels(), next, set.rows.count, set.rows.cols);
    next += int8_rows_floats(workers.kernels(), set.rows.count, set.rows.cols);
    for (int64_t row = 0; row < set.rows.count; row += kTaskRows) parts.push_back({&set, row});
  }
  const auto quantize_part = [&](int64_t i) {
    const Part& part = parts[static_cast<size_t>(i)];
    const Int8Rows& rows = part.set->rows;
    for (int64_t row = part.first; row < std::min(rows.count, part.first + kTaskRows); ++row) {
      workers.kernels().quantize_activations(part.set->sources[static_cast<size_t>(row)], rows, row);
    }
  };
  workers.parallel_for(std::ssize(parts), [&](int64_t i, WorkerScratch&) { quantize_part(i); });
}

}  // namespace moraine::cpu
