#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "runtime/engine.h"

namespace moraine::tools {

/// Which of the tokens' logits are wanted.
enum class LogitRows { kNone, kLast, kAll };

/// Takes `ids` through the model as the next tokens of the sequence in `cache`, in the same chunks as a prompt (borders
/// at absolute multiples of Transformer::chunk_rows()). `logits`: [0, 1 or ids.size(), vocab_size], as asked.
/// `progress` hears after every chunk how many are done. Throws as Transformer::step.
void feed_tokens(runtime::Engine& engine, runtime::KvCache& cache, std::span<const int32_t> ids, LogitRows wanted,
                 std::span<float> logits, runtime::StepObserver* observer = nullptr,
                 const std::function<void(size_t done)>& progress = {});

}  // namespace moraine::tools
