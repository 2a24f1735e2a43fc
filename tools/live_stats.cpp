#include "tools/live_stats.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace moraine::tools {
namespace {

constexpr double kWindowS = 5.0;
constexpr double kRowIntervalS = 0.25, kLineIntervalS = 10.0;

double monotonic_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double percent(uint64_t part, uint64_t whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

LiveStats::LiveStats(Console& console, Counters counters, Clock clock)
    : console_(console),
      counters_(std::move(counters)),
      clock_(clock ? std::move(clock) : monotonic_s),
      row_(console) {}

void LiveStats::on_token() {
  const double now_s = clock_();
  const bool first = moments_.empty();
  if (first) shown_s_ = now_s;  // the first token ends the prompt: decoding is counted from here
  tokens_ += first ? 0 : 1;
  const double interval_s = console_.err_is_terminal() ? kRowIntervalS : kLineIntervalS;
  if (!first && now_s - shown_s_ < interval_s) return;
  moments_.push_back({now_s, tokens_, counters_()});
  if (first) {
    row_.show("…");  // the cursor is at the start of a line now, and not later
    return;
  }
  shown_s_ = now_s;
  const double window_s = std::max(kWindowS, interval_s);
  while (moments_.size() > 2 && moments_[1].at_s <= now_s - window_s) moments_.pop_front();
  const Moment& from = moments_.front();
  const std::string shown =
      text(static_cast<double>(tokens_ - from.tokens), now_s - from.at_s, moments_.back().counters - from.counters);
  if (console_.err_is_terminal()) {
    row_.show(shown);
  } else {
    console_.line(fmt::format("{} tokens: {}", tokens_ + 1, shown));
  }
}

std::string LiveStats::text(double tokens, double seconds, const offload::StoreCounters& counters) {
  std::string text = fmt::format("{:.1f} tokens/s", tokens / seconds);
  const uint64_t wanted = counters.hits + counters.misses + counters.late_prefetches;
  if (wanted == 0) return text;
  text += fmt::format(" · hits {:.0f} % · drive {:.2f} GB/s · waiting {:.0f} %", percent(counters.hits, wanted),
                      static_cast<double>(counters.bytes_read) / seconds / 1e9,
                      static_cast<double>(counters.stall_us) / 1e4 / seconds);
  if (counters.hinted > 0)
    text += fmt::format(" · guesses {:.0f} % right", percent(counters.hinted_wanted, counters.hinted));
  return text;
}

}  // namespace moraine::tools
