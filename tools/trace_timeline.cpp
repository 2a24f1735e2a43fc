#include "tools/trace_timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace moraine::tools {
namespace {

constexpr double kWidth = 1200.0, kLabelWidth = 110.0, kRightMargin = 20.0;
constexpr double kRulerHeight = 18.0, kLaneHeight = 22.0, kBarHeight = 18.0, kReadsHeight = 46.0, kAxisHeight = 22.0;
constexpr double kLeastLabelGap = 34.0;  // between numbers of an axis
constexpr double kHairline = 0.4;        // what lies closer than this is one bar

/// Where times lie on the page.
class TimeScale {
 public:
  TimeScale(double begin_us, double end_us)
      : begin_us_(begin_us), per_us_((kWidth - kLabelWidth - kRightMargin) / std::max(end_us - begin_us, 1.0)) {}
  double x(double at_us) const { return kLabelWidth + (at_us - begin_us_) * per_us_; }
  double width(double duration_us) const { return duration_us * per_us_; }
  /// Of a tick's distance in milliseconds: 1, 2 or 5 times a power of ten.
  double tick_ms() const {
    const double least_ms = 2.0 * kLeastLabelGap / per_us_ / 1e3;
    const double decade = std::pow(10.0, std::floor(std::log10(least_ms)));
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor * decade >= least_ms) return factor * decade;
    }
    return 10.0 * decade;
  }

 private:
  double begin_us_;
  double per_us_;  // pixels
};

std::string text_at(double x, double y, const std::string& anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor, text);
}

/// Neighbouring spans of a lane and layer, drawn as one bar.
struct Bar {
  int64_t layer = -1;
  double begin_us = 0.0, end_us = 0.0, spent_us = 0.0;
  int calls = 0;
};

std::vector<Bar> bars_of(const TraceStep& step, std::string_view name, double hairline_us) {
  std::vector<Bar> bars;
  for (const TraceEvent& span : step.spans) {
    if (span.name != name) continue;
    const double end_us = span.at_us + span.duration_us;
    if (bars.empty() || bars.back().layer != span.layer || span.at_us - bars.back().end_us > hairline_us) {
      bars.push_back({.layer = span.layer, .begin_us = span.at_us, .end_us = end_us});
    }
    Bar& bar = bars.back();
    bar.end_us = std::max(bar.end_us, end_us);
    bar.spent_us += span.duration_us;
    ++bar.calls;
  }
  return bars;
}

std::string lane_svg(const TraceStep& step, const TraceLane& lane, double y, const TimeScale& scale) {
  std::string svg = text_at(kLabelWidth - 8.0, y + 13.0, "end", std::string(lane.label));
  for (const Bar& bar : bars_of(step, lane.name, kHairline / scale.width(1.0))) {
    svg += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.0f}\" width=\"{:.2f}\" height=\"{:.0f}\" fill=\"{}\"><title>{}{}: {:.3f} ms{}"
        "</title></rect>\n",
        scale.x(bar.begin_us), y, std::max(kHairline, scale.width(bar.end_us - bar.begin_us)), kBarHeight, lane.color,
        lane.label, bar.layer >= 0 ? fmt::format(" of layer {}", bar.layer) : "", bar.spent_us / 1e3,
        bar.calls > 1 ? fmt::format(" in {} calls", bar.calls) : "");
  }
  return svg;
}

/// A tick where each layer's attention begins, with as many numbers as there is room for.
std::string ruler_svg(const TraceStep& step, double bottom, const TimeScale& scale) {
  std::string svg = text_at(kLabelWidth - 8.0, kRulerHeight - 6.0, "end", "layer");
  double labelled_x = -kLeastLabelGap;
  int64_t before = -1;
  for (const TraceEvent& span : step.spans) {
    if (span.name != "attention" || span.layer == before) continue;
    before = span.layer;
    const double x = scale.x(span.at_us);
    svg += fmt::format("<line x1=\"{0:.1f}\" y1=\"{1:.0f}\" x2=\"{0:.1f}\" y2=\"{2:.0f}\" class=\"grid\"/>\n", x,
                       kRulerHeight - 2.0, bottom);
    if (x - labelled_x < kLeastLabelGap) continue;
    labelled_x = x;
    svg += text_at(x, kRulerHeight - 6.0, "start", fmt::format("{}", span.layer));
  }
  return svg;
}

std::string reads_svg(const TraceStep& step, double top, double end_us, const TimeScale& scale) {
  int most = std::max(1, step.reads_before);
  for (const auto& [at_us, count] : step.reads) most = std::max(most, count);
  const double bottom = top + kReadsHeight;
  const auto y = [&](int count) { return bottom - (kReadsHeight - 8.0) * count / most; };
  std::string points =
      fmt::format("{:.1f},{:.1f} {:.1f},{:.1f}", kLabelWidth, bottom, kLabelWidth, y(step.reads_before));
  int before = step.reads_before;
  for (const auto& [at_us, count] : step.reads) {
    const double x = scale.x(std::min(at_us, end_us));
    points += fmt::format(" {0:.1f},{1:.1f} {0:.1f},{2:.1f}", x, y(before), y(count));
    before = count;
  }
  points += fmt::format(" {0:.1f},{1:.1f} {0:.1f},{2:.1f}", scale.x(end_us), y(before), bottom);
  return text_at(kLabelWidth - 8.0, top + 26.0, "end", "reads in flight") +
         text_at(kLabelWidth - 8.0, top + 39.0, "end", fmt::format("0 to {}", most)) +
         fmt::format("<polygon points=\"{}\" class=\"reads\"/>\n", points);
}

std::string axis_svg(const TraceStep& step, double y, double end_us, const TimeScale& scale) {
  std::string svg = text_at(kLabelWidth - 8.0, y + 15.0, "end", "ms");
  const double tick_ms = scale.tick_ms(), all_ms = (end_us - step.begin_us) / 1e3;
  for (int i = 0; i * tick_ms <= all_ms; ++i) {
    const double x = scale.x(step.begin_us + i * tick_ms * 1e3);
    svg += fmt::format("<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\" class=\"axis\"/>\n", x, y,
                       y + 4.0);
    svg += text_at(x, y + 15.0, "middle", fmt::format("{:.6g}", i * tick_ms));
  }
  return svg;
}

}  // namespace

double TraceStep::end_us() const {
  double end = begin_us;
  for (const TraceEvent& span : spans) end = std::max(end, span.at_us + span.duration_us);
  return end;
}

double TraceStep::spent_us(std::string_view name) const {
  double sum = 0.0;
  for (const TraceEvent& span : spans) sum += span.name == name ? span.duration_us : 0.0;
  return sum;
}

std::string timeline_svg(const TraceStep& step) {
  const double end_us = step.end_us();
  const TimeScale scale(step.begin_us, end_us);
  std::vector<TraceLane> lanes;
  for (const TraceLane& lane : kTraceLanes) {
    if (step.spent_us(lane.name) > 0.0) lanes.push_back(lane);
  }
  const double reads_top = kRulerHeight + kLaneHeight * static_cast<double>(lanes.size());
  const double axis_top = reads_top + kReadsHeight + 1.0;
  std::string svg = fmt::format("<svg width=\"{:.0f}\" height=\"{:.0f}\">\n", kWidth, axis_top + kAxisHeight);
  svg += ruler_svg(step, axis_top, scale);
  for (size_t i = 0; i < lanes.size(); ++i) {
    svg += lane_svg(step, lanes[i], kRulerHeight + kLaneHeight * static_cast<double>(i), scale);
  }
  return svg + reads_svg(step, reads_top, end_us, scale) + axis_svg(step, axis_top, end_us, scale) + "</svg>\n";
}

}  // namespace moraine::tools
