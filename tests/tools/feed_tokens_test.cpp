#include "tools/feed_tokens.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/captured_console.h"
#include "support/fake_backend.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "tools/engine_setup.h"

namespace moraine::tools {
namespace {

constexpr int32_t kChunk = 4;

/// An engine whose backend repeats the last token and takes steps of at most kChunk rows.
class FeedTokens : public ::testing::Test {
 protected:
  FeedTokens() {
    testing::write_small_model(directory_.path());
    EngineOptions options;
    options.model = directory_.path();
    engine_ = open_engine(options, console_.console(), [this](runtime::EngineParts& parts) {
      fake_ = std::make_shared<testing::FakeBackend>(parts.model->config, kChunk);
      parts.dense = fake_;
      parts.expert_backend = fake_;
    });
    vocab_ = static_cast<size_t>(engine_->config().vocab_size);
    cache_ = fake_->make_cache();
  }

  /// The likeliest token of every row of logits.
  std::vector<int32_t> best(const std::vector<float>& logits) const {
    std::vector<int32_t> ids;
    for (auto row = logits.begin(); row != logits.end(); row += static_cast<ptrdiff_t>(vocab_)) {
      ids.push_back(static_cast<int32_t>(std::max_element(row, row + static_cast<ptrdiff_t>(vocab_)) - row));
    }
    return ids;
  }

  const testing::TempDir directory_;
  testing::CapturedConsole console_;
  std::shared_ptr<testing::FakeBackend> fake_;
  std::unique_ptr<runtime::Engine> engine_;
  std::unique_ptr<runtime::KvCache> cache_;
  size_t vocab_ = 0;
};

TEST_F(FeedTokens, ChunksEndAtAbsoluteMultiples) {
  feed_tokens(*engine_, *cache_, std::vector<int32_t>{1, 2, 3, 4, 5, 6}, LogitRows::kNone, {});
  EXPECT_EQ(fake_->step_rows, (std::vector<int32_t>{4, 2}));
  feed_tokens(*engine_, *cache_, std::vector<int32_t>{7, 8, 9}, LogitRows::kNone, {});
  EXPECT_EQ(fake_->step_rows, (std::vector<int32_t>{4, 2, 2, 1}));
  EXPECT_EQ(fake_->step_positions, (std::vector<int64_t>{0, 4, 6, 8}));
  EXPECT_EQ(cache_->token_count(), 9);
}

TEST_F(FeedTokens, GivesTheLogitsAskedFor) {
  const std::vector<int32_t> ids = {11, 12, 13, 14, 15, 16};
  std::vector<float> last(vocab_), all(ids.size() * vocab_);
  feed_tokens(*engine_, *cache_, ids, LogitRows::kLast, last);
  EXPECT_EQ(best(last), std::vector<int32_t>{16});
  cache_->truncate(0);
  feed_tokens(*engine_, *cache_, ids, LogitRows::kAll, all);
  EXPECT_EQ(best(all), ids);
}

}  // namespace
}  // namespace moraine::tools
