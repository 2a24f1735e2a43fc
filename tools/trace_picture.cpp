#include "tools/trace_picture.h"

#include <fmt/format.h>

#include <algorithm>

#include "quant/error.h"

namespace moraine::tools {
namespace {

constexpr double kWidth = 1200.0, kLaneHeight = 22.0;
constexpr size_t kMostSpans = 20000;  // of a step in the picture
constexpr double kCell = 5.0;

struct Lane {
  const char* name;
  const char* color;
};
constexpr Lane kLanes[] = {{"attention", "#4c78a8"}, {"route", "#9d755d"}, {"routed", "#54a24b"}, {"shared", "#72b7b2"},
                           {"dense FFN", "#b279a2"}, {"wait", "#e45756"},  {"head", "#eeca3b"},   {"embed", "#bab0ac"}};

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char letter : text) {
    if (letter == '<') {
      safe += "&lt;";
    } else if (letter == '&') {
      safe += "&amp;";
    } else {
      safe += letter;
    }
  }
  return safe;
}

/// Hits green, misses red, prefetches blue, by their shares of what happened to an expert; pale where little happened.
std::string heat_color(double hits, double misses, double prefetches, double most) {
  const double sum = hits + misses + prefetches;
  if (sum <= 0.0) return "#f4f4f4";
  const double strength = 0.25 + 0.75 * std::min(1.0, sum / std::max(1.0, most));
  const auto channel = [&](double share) { return static_cast<int>(255.0 * (1.0 - strength * (1.0 - share))); };
  return fmt::format("#{:02x}{:02x}{:02x}", channel(misses / sum), channel(hits / sum), channel(prefetches / sum));
}

}  // namespace

TraceSummary::TraceSummary(const std::filesystem::path& file, size_t steps) {
  model_ = read_trace(file, [&](const TraceEvent& event) { add(event, steps); });
  if (step_count_ > 0) return;
  throw quant::Error(quant::ErrorKind::kBadFile, {.what = "the trace has no step", .file = file});
}

void TraceSummary::add(const TraceEvent& event, size_t steps) {
  if (event.at_us > 0.0) {
    if (first_us_ == 0.0) first_us_ = event.at_us;
    last_us_ = std::max(last_us_, event.at_us + event.duration_us);
  }
  if (event.name == "step") {
    Step step{.begin_us = event.at_us, .spans = {}, .reads = {}};
    if (event.args.is_object() && event.args.contains("rows") && event.args["rows"].is_number_integer()) {
      step.rows = event.args["rows"].get<int64_t>();
    }
    ++step_count_;
    decode_steps_ += step.rows == 1 ? 1 : 0;
    last_steps_.push_back(std::move(step));
    if (last_steps_.size() > steps) last_steps_.pop_front();
  } else if (event.phase == 'X') {
    seconds_[event.name] += event.duration_us / 1e6;
    if (!last_steps_.empty() && last_steps_.back().spans.size() < kMostSpans) last_steps_.back().spans.push_back(event);
  } else if (event.phase == 'C' && event.name == "reads in flight" && !last_steps_.empty()) {
    Step& step = last_steps_.back();
    if (event.args.is_object() && event.args.contains("reads") && event.args["reads"].is_number_integer() &&
        step.reads.size() < kMostSpans) {
      step.reads.emplace_back(event.at_us, event.args["reads"].get<int>());
    }
  } else if (event.phase == 'i' && event.expert >= 0) {
    for (ExpertCounts* counts : {&experts_[{event.layer, event.expert}], &total_}) {
      counts->hits += event.name == "hit" ? 1 : 0;
      counts->misses += event.name == "miss" ? 1 : 0;
      counts->late += event.name == "late" ? 1 : 0;
      counts->prefetches += event.name == "prefetch" ? 1 : 0;
    }
  }
}

std::string TraceSummary::text() const {
  const double all_s = std::max((last_us_ - first_us_) / 1e6, 1e-9);
  std::string text = fmt::format("{} steps ({} of one token) in {:.3f} s\n", step_count_, decode_steps_, all_s);
  for (const Lane& lane : kLanes) {
    const auto found = seconds_.find(lane.name);
    if (found == seconds_.end()) continue;
    text += fmt::format("  {:<10} {:>9.3f} s  {:>5.1f} %\n", lane.name, found->second, 100.0 * found->second / all_s);
  }
  const double wanted = static_cast<double>(total_.hits + total_.misses + total_.late);
  return text + fmt::format("experts: {} wanted, {:.1f} % hits, {} misses, {} late, {} prefetches begun\n",
                            total_.hits + total_.misses + total_.late,
                            wanted > 0.0 ? 100.0 * static_cast<double>(total_.hits) / wanted : 100.0, total_.misses,
                            total_.late, total_.prefetches);
}

std::string TraceSummary::timeline_svg(const Step& step) const {
  double end_us = step.begin_us + 1.0;
  for (const TraceEvent& span : step.spans) end_us = std::max(end_us, span.at_us + span.duration_us);
  const double scale = (kWidth - 90.0) / (end_us - step.begin_us);
  const auto x = [&](double at_us) { return 90.0 + (at_us - step.begin_us) * scale; };
  const double lanes = static_cast<double>(std::size(kLanes)), reads_top = lanes * kLaneHeight + 6.0;
  std::string svg = fmt::format("<svg width=\"{:.0f}\" height=\"{:.0f}\">\n", kWidth, reads_top + 60.0);
  for (size_t lane = 0; lane < std::size(kLanes); ++lane) {
    const double y = static_cast<double>(lane) * kLaneHeight;
    svg += fmt::format("<text x=\"0\" y=\"{:.0f}\">{}</text>\n", y + 15.0, kLanes[lane].name);
    for (const TraceEvent& span : step.spans) {
      if (span.name != kLanes[lane].name) continue;
      svg += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.0f}\" width=\"{:.2f}\" height=\"18\" fill=\"{}\"><title>{} of layer {}: {:.3f} ms"
          "</title></rect>\n",
          x(span.at_us), y, std::max(0.3, span.duration_us * scale), kLanes[lane].color, kLanes[lane].name, span.layer,
          span.duration_us / 1e3);
    }
  }
  int most = 1;
  for (const auto& [at_us, count] : step.reads) most = std::max(most, count);
  std::string points = fmt::format("90,{:.0f}", reads_top + 50.0);
  int before = 0;
  for (const auto& [at_us, count] : step.reads) {
    const auto y = [&](int reads) { return reads_top + 50.0 - 45.0 * reads / most; };
    points += fmt::format(" {0:.1f},{1:.1f} {0:.1f},{2:.1f}", x(std::min(at_us, end_us)), y(before), y(count));
    before = count;
  }
  return svg + fmt::format(
                   "<text x=\"0\" y=\"{:.0f}\">reads ≤ {}</text><polyline points=\"{}\" fill=\"none\" "
                   "stroke=\"#f58518\"/>\n</svg>\n",
                   reads_top + 30.0, most, points);
}

std::string TraceSummary::heat_map_svg() const {
  double most = 1.0;
  for (const auto& [place, counts] : experts_) {
    most = std::max(most, static_cast<double>(counts.hits + counts.misses + counts.late + counts.prefetches));
  }
  const auto layers = static_cast<double>(model_.layers - model_.first_moe_layer);
  std::string svg = fmt::format("<svg width=\"{:.0f}\" height=\"{:.0f}\">\n",
                                50.0 + kCell * static_cast<double>(model_.experts), kCell * layers + 4.0);
  for (int64_t layer = model_.first_moe_layer; layer < model_.layers; layer += 8) {
    svg += fmt::format("<text x=\"0\" y=\"{:.0f}\">{}</text>\n",
                       kCell * static_cast<double>(layer - model_.first_moe_layer) + 10.0, layer);
  }
  for (const auto& [place, counts] : experts_) {
    const auto& [layer, expert] = place;
    if (layer < model_.first_moe_layer || layer >= model_.layers || expert >= model_.experts) continue;
    svg += fmt::format(
        "<rect x=\"{:.0f}\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"><title>layer {} expert {}: {} "
        "hits, {} misses, {} late, {} prefetches</title></rect>\n",
        50.0 + kCell * static_cast<double>(expert), kCell * static_cast<double>(layer - model_.first_moe_layer),
        kCell - 0.5, kCell - 0.5,
        heat_color(static_cast<double>(counts.hits), static_cast<double>(counts.misses + counts.late),
                   static_cast<double>(counts.prefetches), most),
        layer, expert, counts.hits, counts.misses, counts.late, counts.prefetches);
  }
  return svg + "</svg>\n";
}

std::string TraceSummary::html(const std::string& title) const {
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\n"
      "<style>body{{font:13px sans-serif;margin:20px}}text{{font:11px sans-serif}}pre{{font:12px monospace}}</style>\n"
      "</head><body>\n<h1>{0}</h1>\n<pre>{1}</pre>\n",
      escaped(title), escaped(text()));
  page +=
      "<h2>Experts: a row per layer, a column per expert</h2>\n<p>Green: hits, red: misses, blue: prefetches.</p>\n";
  page += heat_map_svg();
  page += fmt::format("<h2>The last {} steps</h2>\n", last_steps_.size());
  for (const Step& step : last_steps_) {
    page += fmt::format("<h3>{} token{} at {:.3f} s</h3>\n", step.rows, step.rows == 1 ? "" : "s", step.begin_us / 1e6);
    page += timeline_svg(step);
  }
  return page + "</body></html>\n";
}

}  // namespace moraine::tools
