#include "cpu/mla_attention_bf16.h"

#include <algorithm>
#include <cstring>

#include "cpu/flash_bf16.h"
#include "cpu/matmul.h"
#include "cpu/quantized_rows.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

constexpr int64_t kPage = LatentCache::kPageTokens;
static_assert(kFlashTokens % kPage == 0);
/// Groups of 16 value columns that are paired and multiplied at a time: with 256 tokens they stay in L1.
constexpr int64_t kValueGroups = 4;
/// Tokens whose keys and values are computed at a time in the expanded form.
constexpr int64_t kExpandTokens = 32;
static_assert(kPage % kExpandTokens == 0);

Bf16* bf16_memory(FloatBuffer& buffer, int64_t count) {
  return reinterpret_cast<Bf16*>(buffer.get((count + 1) / 2));
}

/// Both forms of one task.
class Task {
 public:
  Task(const Workers& workers, WorkerScratch& scratch, const MlaInputs& inputs, const MlaTask& task)
      : workers_(workers),
        kernels_(workers.kernels()),
        scratch_(scratch),
        in_(inputs),
        shape_(inputs.shape),
        task_(task),
        cache_(*task.slice->cache),
        visible_(task.first_position + task.row_count) {}

  void run_absorbed();
  void run_expanded();

 private:
  FlashBf16 make_rows(int64_t key_width, int64_t value_width) {
    return {kernels_, scratch_, task_.row_count * task_.head_count, key_width, value_width, shape_.softmax_scale};
  }
  void absorb_head(FlashBf16& rows, int64_t head);
  void add_latents(FlashBf16& rows, const FlashBf16Block& block, int64_t tokens);
  void prefetch_latents(int64_t first_position, int64_t part, int64_t parts) const;
  void unabsorb_head(FlashBf16& rows, int64_t head);
  /// Where the group of kv_b_proj lies that is a head's rows behind group `g`.
  const std::byte* next_head(int64_t g) const {
    return packed_group(in_.kv_b_proj, g + shape_.kv_head_rows() / kLanes).data;
  }
  Bf16Panel project(const GroupRange& range);
  void expand(const Bf16Panel& projection, const GroupRange& range, const FlashBf16Block& block, Bf16* keys,
              Bf16* values);

  const Workers& workers_;
  const KernelTable& kernels_;
  WorkerScratch& scratch_;
  const MlaInputs& in_;
  const MlaShape& shape_;
  const MlaTask& task_;
  const LatentCache& cache_;
  int64_t visible_;  // tokens that the last row sees
};

/// Queries of a head: q_nope · W_UK | q_pe, the product with the transposed rows of kv_b_proj.
void Task::absorb_head(FlashBf16& rows, int64_t head) {
  const GroupRange range = covering_groups(head * shape_.kv_head_rows(), shape_.qk_nope_head_dim);
  const AbsorbKernel absorb = absorb_kernel(kernels_, in_.kv_b_proj.type);
  const int64_t padded = range.group_count * kLanes, rank = shape_.kv_lora_rank, width = cache_.stride();
  float* q_nope = scratch_.x_tile.get(padded);  // [padded], other rows' lanes zero
  float* query = scratch_.acc.get(2 * width);   // [width]: latent | rope | padding
  float* part = query + width;                  // [rank]
  auto* room = reinterpret_cast<std::byte*>(scratch_.weights.get(kAbsorbScratchBytes / 4));
  std::fill_n(q_nope, padded, 0.0f);
  std::fill_n(query + cache_.width(), width - cache_.width(), 0.0f);
  for (int64_t t = 0; t < task_.row_count; ++t) {
    const float* from = in_.query(task_, t, head);
    std::copy_n(from, shape_.qk_nope_head_dim, q_nope + range.skipped_lanes);
    for (int64_t g = 0; g < range.group_count; g += kAbsorbGroups) {
      const int64_t first = range.first_group + g;
      PackedGroups groups = packed_groups(in_.kv_b_proj, first, std::min(kAbsorbGroups, range.group_count - g));
      if (t + 1 == task_.row_count) groups.next = next_head(first);
      absorb(groups, q_nope + g * kLanes, room, g == 0 ? query : part);
      for (int64_t k = 0; g > 0 && k < rank; ++k) query[k] += part[k];
    }
    std::copy_n(from + shape_.qk_nope_head_dim, shape_.qk_rope_head_dim, query + rank);
    rows.set_row(t * task_.head_count + head - task_.first_head, task_.first_position + t, query);
  }
}

/// Part `part` of `parts` of the block at first_position, into L2: products alone do not keep the memory busy.
void Task::prefetch_latents(int64_t first_position, int64_t part, int64_t parts) const {
  constexpr int64_t kLineNumbers = 64 / static_cast<int64_t>(sizeof(Bf16));
  const int64_t tokens = std::min(kFlashTokens, visible_ - first_position);
  for (int64_t token = part * tokens / parts; token < (part + 1) * tokens / parts; ++token) {
    const int64_t position = first_position + token;
    const Bf16* row = cache_.bf16_page(in_.layer, position / kPage) + position % kPage * cache_.stride();
    for (int64_t i = 0; i < cache_.stride(); i += kLineNumbers) __builtin_prefetch(row + i, 0, 2);
  }
}

/// Adds the weighted latents of a block: the values of the absorbed form.
void Task::add_latents(FlashBf16& rows, const FlashBf16Block& block, int64_t tokens) {
  const int64_t padded = padded_tokens(tokens), groups = shape_.kv_lora_rank / kLanes;
  const int64_t group_stride = padded * kLanes;
  Bf16* values = bf16_memory(scratch_.values, kValueGroups * group_stride);  // [groups, tokens/2, 16, 2]
  for (int64_t g = 0; g < groups; g += kValueGroups) {
    const int64_t count = std::min(kValueGroups, groups - g);
    prefetch_latents(block.first_position + kFlashTokens, g / kValueGroups, (groups + kValueGroups - 1) / kValueGroups);
    for (int64_t token = 0; token < tokens; token += kPage) {
      kernels_.bf16.pair_rows(block.keys[token / kPage] + g * kLanes, block.key_stride, std::min(kPage, tokens - token),
                              count, values + token * kLanes, group_stride);
    }
    const int64_t paired = (tokens + 1) / 2 * 2;
    for (int64_t i = 0; i < count; ++i) {
      std::fill_n(values + i * group_stride + paired * kLanes, (padded - paired) * kLanes, Bf16{0});
    }
    rows.add({.data = values, .group_stride = group_stride, .group_count = count}, g, tokens);
  }
}

/// out[t, head] = W_UV[head] · mixed[t, head], with int8 activations.
void Task::unabsorb_head(FlashBf16& rows, int64_t head) {
  const GroupRange range = covering_groups(head * shape_.kv_head_rows() + shape_.qk_nope_head_dim, shape_.v_head_dim);
  const int64_t padded = range.group_count * kLanes, rank = shape_.kv_lora_rank;
  const Int8Rows latents = place_int8_rows(
      kernels_, scratch_.second_acc.get(int8_rows_floats(kernels_, task_.row_count, rank)), task_.row_count, rank);
  for (int64_t t = 0; t < task_.row_count; ++t) {
    const float* mixed = rows.finish(t * task_.head_count + head - task_.first_head);
    kernels_.quantize_activations(mixed, latents, t);
  }
  float* acc = scratch_.acc.get(task_.row_count * padded);  // [rows, padded]
  multiply_groups_int8(kernels_, *int8_format(workers_, in_.kv_b_proj), scratch_, in_.kv_b_proj, range.first_group,
                       range.group_count, latents, acc, padded, next_head(range.first_group));
  for (int64_t t = 0; t < task_.row_count; ++t) {
    std::copy_n(acc + t * padded + range.skipped_lanes, shape_.v_head_dim, in_.output(task_, t, head));
  }
}

void Task::run_absorbed() {
  FlashBf16 rows = make_rows(cache_.stride(), shape_.kv_lora_rank);
  MORAINE_CHECK(rows.row_count() <= kFlashRows);
  const int64_t heads_end = task_.first_head + task_.head_count;
  for (int64_t head = task_.first_head; head < heads_end; ++head) absorb_head(rows, head);
  for (int64_t first = 0; first < visible_; first += kFlashTokens) {
    const Bf16* pages[kFlashTokens / kPage] = {};
    const FlashBf16Block block{.first_position = first,
                               .token_count = std::min(kFlashTokens, visible_ - first),
                               .keys = pages,
                               .piece_tokens = kPage,
                               .key_stride = cache_.stride()};
    for (int64_t token = 0; token < block.token_count; token += kPage) {
      pages[token / kPage] = cache_.bf16_page(in_.layer, (first + token) / kPage);
    }
    const int64_t tokens = rows.weigh(block, 0, rows.row_count());
    add_latents(rows, block, tokens);
  }
  for (int64_t head = task_.first_head; head < heads_end; ++head) unabsorb_head(rows, head);
}

/// The head's rows of kv_b_proj, rounded to bf16: steps are columns, lanes are rows.
Bf16Panel Task::project(const GroupRange& range) {
  constexpr int64_t kColumns = 256;
  const int64_t rank = shape_.kv_lora_rank, group_stride = rank * kLanes;
  Bf16* panel = bf16_memory(scratch_.projection, range.group_count * group_stride);
  for (int64_t col = 0; col < rank; col += kColumns) {
    const int64_t count = std::min(kColumns, rank - col);
    const Panel decoded =
        decode_panel(kernels_, scratch_, in_.kv_b_proj, range.first_group, range.group_count, col, count);
    for (int64_t g = 0; g < range.group_count; ++g) {
      kernels_.bf16.pair_f32_rows(decoded.data + g * decoded.group_stride, decoded.k_stride, count, 1,
                                  panel + g * group_stride + col * kLanes, group_stride);
    }
  }
  return {.data = panel, .group_stride = group_stride, .group_count = range.group_count};
}

/// Keys and values of a block's tokens from their latents. keys: [kFlashTokens, key width], values: Bf16Panel order.
void Task::expand(const Bf16Panel& projection, const GroupRange& range, const FlashBf16Block& block, Bf16* keys,
                  Bf16* values) {
  const int64_t nope = shape_.qk_nope_head_dim, width = projection.group_count * kLanes;
  const int64_t value_groups = padded_to_lanes(shape_.v_head_dim) / kLanes;
  float* expanded = scratch_.acc.get(kExpandTokens * width + kLanes);  // [tokens, k_nope | v]; read 16 at a time
  for (int64_t token = 0; token < block.token_count; token += kExpandTokens) {
    const int64_t position = block.first_position + token;
    const int64_t count = std::min(kExpandTokens, block.token_count - token);
    const Bf16* latents = cache_.bf16_page(in_.layer, position / kPage) + position % kPage * cache_.stride();
    kernels_.bf16.multiply(latents, cache_.stride(), padded_to_lanes(count), projection, shape_.kv_lora_rank,
                           /*continued=*/false, expanded, width);
    for (int64_t i = 0; i < count; ++i) {
      Bf16* key = keys + (token + i) * block.key_stride;
      kernels_.bf16.round(expanded + i * width + range.skipped_lanes, nope, key);
      std::copy_n(latents + i * cache_.stride() + shape_.kv_lora_rank, shape_.qk_rope_head_dim, key + nope);
    }
    kernels_.bf16.pair_f32_rows(expanded + range.skipped_lanes + nope, width, count, value_groups,
                                values + token * kLanes, kFlashTokens * kLanes);
  }
  const int64_t paired = (block.token_count + 1) / 2 * 2, padded = padded_tokens(block.token_count);
  for (int64_t g = 0; g < value_groups; ++g) {
    std::fill_n(values + (g * kFlashTokens + paired) * kLanes, (padded - paired) * kLanes, Bf16{0});
  }
}

void Task::run_expanded() {
  MORAINE_CHECK(task_.head_count == 1);
  const int64_t head = task_.first_head, key_width = padded_tokens(shape_.qk_head_dim());
  const int64_t value_groups = padded_to_lanes(shape_.v_head_dim) / kLanes;
  FlashBf16 rows = make_rows(key_width, value_groups * kLanes);
  float* query = scratch_.x_tile.get(key_width);
  std::fill_n(query, key_width, 0.0f);
  for (int64_t t = 0; t < task_.row_count; ++t) {
    std::copy_n(in_.query(task_, t, head), shape_.qk_head_dim(), query);
    rows.set_row(t, task_.first_position + t, query);
  }
  const GroupRange range = covering_groups(head * shape_.kv_head_rows(), shape_.kv_head_rows());
  const Bf16Panel projection = project(range);
  Bf16* keys = bf16_memory(scratch_.keys, kFlashTokens * key_width);                  // [tokens, nope | rope | padding]
  Bf16* values = bf16_memory(scratch_.values, value_groups * kFlashTokens * kLanes);  // [groups, tokens/2, 16, 2]
  std::fill_n(keys, kFlashTokens * key_width, Bf16{0});
  for (int64_t first = 0; first < visible_; first += kFlashTokens) {
    const FlashBf16Block block{.first_position = first,
                               .token_count = std::min(kFlashTokens, visible_ - first),
                               .keys = &keys,
                               .key_stride = key_width};
    expand(projection, range, block, keys, values);
    for (int64_t row = 0; row < task_.row_count; row += kFlashRows) {
      const int64_t tokens = rows.weigh(block, row, std::min(kFlashRows, task_.row_count - row));
      if (tokens == 0) continue;
      rows.add({.data = values, .group_stride = kFlashTokens * kLanes, .group_count = value_groups}, 0, tokens);
    }
  }
  for (int64_t t = 0; t < task_.row_count; ++t) {
    std::copy_n(rows.finish(t), shape_.v_head_dim, in_.output(task_, t, head));
  }
}

}  // namespace

AbsorbKernel absorb_kernel(const KernelTable& kernels, quant::DType type) {
  switch (type) {
    case quant::DType::kQ8_0:
      return kernels.bf16.absorb_q8_0;
    case quant::DType::kQ4_0:
      return kernels.bf16.absorb_q4_0;
    case quant::DType::kQ4_K:
      return kernels.bf16.absorb_q4_k;
    default:
      return nullptr;
  }
}

void mla_task_bf16(const Workers& workers, WorkerScratch& scratch, const MlaInputs& inputs, const MlaTask& task) {
  MORAINE_CHECK(absorb_kernel(workers.kernels(), inputs.kv_b_proj.type) != nullptr && !workers.precise());
  Task work(workers, scratch, inputs, task);
  if (task.slice->form == MlaForm::kAbsorbed) {
    work.run_absorbed();
  } else {
    work.run_expanded();
  }
}

}  // namespace moraine::cpu
