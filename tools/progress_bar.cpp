#include "tools/progress_bar.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "tools/byte_size.h"

namespace moraine::tools {
namespace {

constexpr double kRedrawIntervalS = 0.1;
constexpr double kLineIntervalS = 10.0;
constexpr double kQuietS = 1.0;  // shorter jobs show no bar

double monotonic_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

ProgressBar::ProgressBar(Console& console, std::string label, ProgressUnit unit, Clock clock)
    : console_(console),
      label_(std::move(label)),
      unit_(unit),
      clock_(clock ? std::move(clock) : Clock(monotonic_s)),
      start_s_(clock_()),
      shown_s_(start_s_ + (console.err_is_terminal() ? kQuietS - kRedrawIntervalS : 0.0)) {}

ProgressBar::~ProgressBar() {
  console_.clear_redrawn();
}

void ProgressBar::update(uint64_t done, uint64_t total, std::string_view note) {
  if (!started_) {
    started_ = true;
    first_done_ = done;
  }
  const double now_s = clock_();
  const double interval_s = console_.err_is_terminal() ? kRedrawIntervalS : kLineIntervalS;
  if (now_s - shown_s_ < interval_s) return;
  shown_s_ = now_s;
  const std::string shown =
      text(done, total, now_s - start_s_, console_.err_is_terminal() ? console_.width() : 0, note);
  if (console_.err_is_terminal()) {
    console_.redraw(shown);
  } else {
    console_.line(shown);
  }
}

std::string ProgressBar::amount(double value) const {
  if (unit_ == ProgressUnit::kBytes) return byte_size_text(static_cast<uint64_t>(value));
  return fmt::format("{:.0f}", value);
}

std::string ProgressBar::text(uint64_t done, uint64_t total, double elapsed_s, int width, std::string_view note) const {
  const double fraction = total == 0 ? 1.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  std::string numbers = fmt::format("{:3.0f} %  {} of {}", std::floor(fraction * 100.0),
                                    amount(static_cast<double>(done)), amount(static_cast<double>(total)));
  const double per_s =
      elapsed_s > 0.0 && done > first_done_ ? static_cast<double>(done - first_done_) / elapsed_s : 0.0;
  if (per_s > 0.0) {
    numbers += unit_ == ProgressUnit::kBytes ? fmt::format("  {}/s", amount(per_s)) : fmt::format("  {:.1f}/s", per_s);
    if (total > done) numbers += fmt::format("  {} left", duration_text(static_cast<double>(total - done) / per_s));
  }
  if (!note.empty()) numbers += fmt::format("  {}", note);
  const int room = std::min(40, width - static_cast<int>(label_.size() + numbers.size()) - 8);
  if (room < 8) return fmt::format("{}  {}", label_, numbers);
  const auto filled = static_cast<size_t>(std::lround(fraction * room));
  return fmt::format("{}  [{}{}]  {}", label_, std::string(filled, '#'),
                     std::string(static_cast<size_t>(room) - filled, ' '), numbers);
}

std::string duration_text(double duration_s) {
  const auto seconds = static_cast<int64_t>(std::clamp(std::ceil(duration_s), 0.0, 359999.0));
  if (seconds < 3600) return fmt::format("{}:{:02}", seconds / 60, seconds % 60);
  return fmt::format("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

}  // namespace moraine::tools
