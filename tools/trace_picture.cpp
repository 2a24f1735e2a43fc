#include "tools/trace_picture.h"

#include <fmt/format.h>

#include <algorithm>

#include "quant/error.h"
#include "tools/byte_size.h"

namespace moraine::tools {
namespace {

constexpr size_t kMostSpans = 20000;  // of a step in the picture

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

/// The integer `name` of an event's arguments, or 0.
int64_t integer_of(const TraceEvent& event, const char* name) {
  if (!event.args.is_object()) return 0;
  const auto found = event.args.find(name);
  return found != event.args.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

double percent(double part, double whole) {
  return whole > 0.0 ? 100.0 * part / whole : 0.0;
}

constexpr const char* kStyle =
    "body{font:13px system-ui,sans-serif;margin:20px;color:#222;background:#fff}h1{font-size:20px}h2{font-size:16px;"
    "margin-top:28px}h3{font-size:13px;margin:16px 0 4px}svg{display:block}text{font:11px "
    "system-ui,sans-serif;fill:#444}"
    "table{border-collapse:collapse}td{padding:1px 10px 1px 0}td.n{text-align:right;font-variant-numeric:tabular-nums}"
    "i{display:inline-block;width:11px;height:11px;margin:0 5px 0 "
    "8px;vertical-align:-1px}i.bar{margin:0}i.none{outline:1px solid #bbb}"
    ".none,.empty{background:#f0f0f0;fill:#f0f0f0}.share{fill:#1d8641}.grid{stroke:#e4e4e4}.axis{stroke:#888}"
    ".reads{fill:#f0c27b;stroke:#8a5a00;stroke-width:.7}.legend{margin:2px 0 6px}";

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
    const int64_t rows = integer_of(event, "rows");
    ++step_count_;
    decode_steps_ += rows == 1 ? 1 : 0;
    last_steps_.push_back({.rows = rows, .begin_us = event.at_us, .reads_before = reads_now_});
    if (last_steps_.size() > steps) last_steps_.pop_front();
  } else if (event.phase == 'X') {
    seconds_[event.name] += event.duration_us / 1e6;
    if (!last_steps_.empty()) keep(last_steps_.back().spans, event);
  } else if (event.phase == 'C' && event.name == "reads in flight") {
    reads_now_ = static_cast<int>(std::clamp<int64_t>(integer_of(event, "reads"), 0, 1 << 20));
    if (!last_steps_.empty()) keep(last_steps_.back().reads, std::pair(event.at_us, reads_now_));
  } else if (event.phase == 'i' && event.expert >= 0) {
    for (ExpertCounts* counts : {&experts_[{event.layer, event.expert}], &total_}) {
      counts->hits += event.name == "hit" ? 1 : 0;
      counts->misses += event.name == "miss" ? 1 : 0;
      counts->late += event.name == "late" ? 1 : 0;
      counts->prefetches += event.name == "prefetch" ? 1 : 0;
    }
  }
}

template <typename Item>
void TraceSummary::keep(std::vector<Item>& items, const Item& item) {
  if (items.size() < kMostSpans) {
    items.push_back(item);
  } else {
    last_steps_.back().is_cut = true;
  }
}

double TraceSummary::all_s() const {
  return std::max((last_us_ - first_us_) / 1e6, 1e-9);
}

std::string TraceSummary::steps_text() const {
  return fmt::format("{} steps ({} of one token) in {:.3f} s", step_count_, decode_steps_, all_s());
}

std::string TraceSummary::experts_text() const {
  return fmt::format(
      "{} wanted, {:.1f} % hits, {} misses, {} late, {} prefetches begun", total_.wanted(),
      total_.wanted() > 0 ? percent(static_cast<double>(total_.hits), static_cast<double>(total_.wanted())) : 100.0,
      total_.misses, total_.late, total_.prefetches);
}

std::string TraceSummary::text() const {
  std::string text = steps_text() + "\n";
  for (const TraceLane& lane : kTraceLanes) {
    const auto found = seconds_.find(std::string(lane.name));
    if (found == seconds_.end()) continue;
    text +=
        fmt::format("  {:<15} {:>9.3f} s  {:>5.1f} %\n", lane.label, found->second, percent(found->second, all_s()));
  }
  return text + "experts: " + experts_text() + "\n";
}

std::string TraceSummary::times_html() const {
  constexpr double kBarWidth = 400.0;
  std::string rows;
  const auto row = [&](std::string_view label, std::string_view color, double spent_s) {
    const double share = percent(spent_s, all_s());
    rows += fmt::format(
        "<tr><td><i style=\"background:{0}\"></i>{1}</td><td class=\"n\">{2:.3f} s</td><td class=\"n\">{3:.1f} %</td>"
        "<td><i class=\"bar\" style=\"background:{0};width:{4:.0f}px\"></i></td></tr>\n",
        color, label, spent_s, share, kBarWidth * std::min(share, 100.0) / 100.0);
  };
  double rest_s = all_s();
  for (const TraceLane& lane : kTraceLanes) {
    const auto found = seconds_.find(std::string(lane.name));
    if (found == seconds_.end()) continue;
    row(lane.label, lane.color, found->second);
    rest_s -= found->second;
  }
  row("everything else", "#cccccc", std::max(0.0, rest_s));
  return "<table>\n" + rows + "</table>\n";
}

std::string TraceSummary::html(const std::string& title) const {
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\n<style>{1}</style>\n"
      "</head><body>\n<h1>{0}</h1>\n<p>{2}.</p>\n",
      escaped(title), kStyle, steps_text());
  page += "<h2>Where the time went</h2>\n" + times_html();
  if (model_.experts > 0) {
    page += fmt::format(
        "<h2>Experts</h2>\n<p>{}.<br>{} layers of {} experts ({} each), {} for every token; room in RAM for {} of {}. "
        "A "
        "row is a layer, a column an expert.</p>\n",
        experts_text(), model_.layers - model_.first_moe_layer, model_.experts,
        byte_size_text(static_cast<uint64_t>(model_.record_bytes)), model_.top_k, model_.slots,
        (model_.layers - model_.first_moe_layer) * model_.experts);
    page += heat_maps_html(model_, experts_);
  }
  page += last_steps_.size() == 1 ? "<h2>The last step</h2>\n"
                                  : fmt::format("<h2>The last {} steps</h2>\n", last_steps_.size());
  for (const TraceStep& step : last_steps_) {
    const double step_us = step.end_us() - step.begin_us;
    page +=
        fmt::format("<h3>{} token{} at {:.3f} s: {:.2f} ms, {:.0f} % of them waiting for the drive{}</h3>\n", step.rows,
                    step.rows == 1 ? "" : "s", step.begin_us / 1e6, step_us / 1e3,
                    percent(step.spent_us("wait"), step_us), step.is_cut ? "; cut: only its beginning is kept" : "");
    page += timeline_svg(step);
  }
  return page + "</body></html>\n";
}

}  // namespace moraine::tools
