#include "tools/feed_tokens.h"

#include <numeric>
#include <vector>

#include "quant/error.h"

namespace moraine::tools {

void feed_tokens(runtime::Engine& engine, runtime::KvCache& cache, std::span<const int32_t> ids, LogitRows wanted,
                 std::span<float> logits, runtime::StepObserver* observer,
                 const std::function<void(size_t done)>& progress) {
  const auto vocab = static_cast<size_t>(engine.config().vocab_size);
  const size_t logit_rows = wanted == LogitRows::kNone ? 0 : wanted == LogitRows::kLast ? 1 : ids.size();
  MORAINE_CHECK(!ids.empty() && logits.size() == logit_rows * vocab);
  for (size_t done = 0; done < ids.size();) {
    const int64_t position = cache.token_count();
    const auto rows =
        static_cast<size_t>(engine.transformer().next_chunk_rows(position, static_cast<int64_t>(ids.size() - done)));
    const bool last = done + rows == ids.size();
    std::vector<int32_t> wanted_rows;
    if (wanted == LogitRows::kAll) {
      wanted_rows.resize(rows);
      std::iota(wanted_rows.begin(), wanted_rows.end(), 0);
    } else if (wanted == LogitRows::kLast && last) {
      wanted_rows.push_back(static_cast<int32_t>(rows) - 1);
    }
    const std::span<float> place =
        logits.subspan(wanted == LogitRows::kAll ? done * vocab : 0, wanted_rows.size() * vocab);
    const runtime::SequenceSlice slice{&cache, position, 0, static_cast<int32_t>(rows)};
    engine.transformer().step({ids.subspan(done, rows), std::span(&slice, 1)}, wanted_rows, place, {}, observer);
    done += rows;
    if (progress) progress(done);
  }
}

}  // namespace moraine::tools
