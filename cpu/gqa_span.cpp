#include "cpu/gqa_span.h"

#include <algorithm>

namespace moraine::cpu {
namespace {

constexpr int64_t kPage = HeadCache::kPageTokens;
static_assert(kFlashTokens % kPage == 0);

}  // namespace

GqaF32Rows::GqaF32Rows(const KernelTable& kernels, WorkerScratch& scratch, const HeadCache& cache,
                       const GqaQueries& queries)
    : kernels_(kernels), cache_(cache) {
  const int64_t count = queries.count(), head_dim = cache.head_dim();
  scratch.softmax.resize(static_cast<size_t>(count));
  scratch.positions.resize(static_cast<size_t>(count));
  float* copies = scratch.queries.get(count * head_dim);  // [rows, group, head_dim]
  for (int64_t t = 0; t < queries.row_count; ++t) {
    std::copy_n(queries.q + t * queries.row_stride, queries.group * head_dim, copies + t * queries.group * head_dim);
  }
  for (int64_t i = 0; i < count; ++i) scratch.positions[static_cast<size_t>(i)] = queries.position(i);
  rows_ = {.count = count,
           .key_width = head_dim,
           .value_width = cache.value_stride(),
           .scale = queries.scale,
           .queries = copies,
           .positions = scratch.positions.data(),
           .scores = scratch.scores.get(count * kPage),
           .score_stride = kPage,
           .softmax = scratch.softmax.data(),
           .mixed = scratch.mixed.get(count * cache.value_stride())};
}

void GqaF32Rows::run(int64_t layer, int64_t kv_head, int64_t first, int64_t end) {
  std::fill_n(rows_.softmax, rows_.count, SoftmaxState{});
  std::fill_n(rows_.mixed, rows_.count * rows_.value_width, 0.0f);
  for (int64_t position = first; position < end; position += kPage) {
    flash_block(kernels_, rows_,
                {.first_position = position,
                 .token_count = std::min(kPage, end - position),
                 .keys = cache_.f32_keys(layer, kv_head, position / kPage),
                 .values = cache_.f32_values(layer, kv_head, position / kPage),
                 .value_stride = cache_.value_stride()});
  }
}

GqaBf16Rows::GqaBf16Rows(const KernelTable& kernels, WorkerScratch& scratch, const HeadCache& cache,
                         const GqaQueries& queries)
    : cache_(cache), rows_(kernels, scratch, queries.count(), cache.key_stride(), cache.value_stride(), queries.scale) {
  const int64_t head_dim = cache.head_dim();
  float* padded = scratch.x_tile.get(cache.key_stride());  // [key_stride]
  std::fill_n(padded, cache.key_stride(), 0.0f);
  for (int64_t i = 0; i < queries.count(); ++i) {
    std::copy_n(queries.q + i / queries.group * queries.row_stride + i % queries.group * head_dim, head_dim, padded);
    rows_.set_row(i, queries.position(i), padded);
  }
}

/// The page with `position`, into L2: products alone do not keep the memory busy.
void GqaBf16Rows::prefetch(int64_t layer, int64_t kv_head, int64_t position) const {
  constexpr int64_t kLineNumbers = 64 / static_cast<int64_t>(sizeof(Bf16));
  const Bf16* page = cache_.bf16_keys(layer, kv_head, position / kPage);  // keys, then values
  const int64_t numbers = kPage * (cache_.key_stride() + cache_.value_stride());
  for (int64_t i = 0; i < numbers; i += kLineNumbers) __builtin_prefetch(page + i, 0, 2);
}

void GqaBf16Rows::run(int64_t layer, int64_t kv_head, int64_t first, int64_t end) {
  rows_.restart();
  for (int64_t begin = first; begin < end; begin += kFlashTokens) {
    const Bf16* pages[kFlashTokens / kPage] = {};
    const FlashBf16Block block{.first_position = begin,
                               .token_count = std::min(kFlashTokens, end - begin),
                               .keys = pages,
                               .piece_tokens = kPage,
                               .key_stride = cache_.key_stride()};
    for (int64_t token = 0; token < block.token_count; token += kPage) {
      pages[token / kPage] = cache_.bf16_keys(layer, kv_head, (begin + token) / kPage);
    }
    for (int64_t row = 0; row < rows_.row_count(); row += kFlashRows) {
      const int64_t tokens = rows_.weigh(block, row, std::min(kFlashRows, rows_.row_count() - row));
      for (int64_t token = 0; token < tokens; token += kPage) {
        const int64_t next = begin + token + kFlashTokens;
        if (row == 0 && next < end) prefetch(layer, kv_head, next);
        rows_.add(cache_.bf16_values(layer, kv_head, (begin + token) / kPage), 0, std::min(kPage, tokens - token),
                  token);
      }
    }
  }
}

}  // namespace moraine::cpu
