#include "tools/trace_heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <vector>

namespace moraine::tools {
namespace {

constexpr double kMapWidth = 1024.0, kLeft = 60.0, kTop = 16.0, kShareGap = 12.0, kShareWidth = 100.0;
constexpr double kSmallestCell = 2.0, kLargestCell = 14.0;
constexpr size_t kLevels = 5;

/// A map's counts, name and colours from few to many.
struct HeatMap {
  std::string_view title;
  uint64_t (*count)(const ExpertCounts&);
  std::array<std::string_view, kLevels> colors;
};

const HeatMap kMaps[] = {{"Hits: wanted and in RAM",
                          [](const ExpertCounts& counts) { return counts.hits; },
                          {"#c7e9c0", "#8fd18c", "#4bb062", "#1d8641", "#00441b"}},
                         {"Misses: wanted and read while the layer waited (late prefetches among them)",
                          [](const ExpertCounts& counts) { return counts.misses + counts.late; },
                          {"#fdd0a2", "#fdae6b", "#f57f2c", "#d24a02", "#7f2704"}},
                         {"Prefetches: read because a prediction named them",
                          [](const ExpertCounts& counts) { return counts.prefetches; },
                          {"#c6dbef", "#8fbfe0", "#4a97c9", "#1a66a8", "#08306b"}}};

/// Rows and columns of a map.
struct Grid {
  int64_t first_layer, layers, experts;
  double cell;

  explicit Grid(const TraceModel& model)
      : first_layer(model.first_moe_layer),
        layers(model.layers - model.first_moe_layer),
        experts(std::max<int64_t>(1, model.experts)),
        cell(std::clamp(std::floor(kMapWidth / static_cast<double>(experts)), kSmallestCell, kLargestCell)) {}
  bool has(int64_t layer, int64_t expert) const {
    return layer >= first_layer && layer < first_layer + layers && expert < experts;
  }
  double x(int64_t expert) const { return kLeft + cell * static_cast<double>(expert); }
  double y(int64_t layer) const { return kTop + cell * static_cast<double>(layer - first_layer); }
};

/// 1, 2, 4, 8, … : the least step that leaves `room` pixels between two numbers.
int64_t label_step(double cell, double room) {
  int64_t step = 1;
  while (cell * static_cast<double>(step) < room) step *= 2;
  return step;
}

std::string labels_svg(const Grid& grid) {
  std::string svg;
  for (int64_t expert = 0; expert < grid.experts; expert += label_step(grid.cell, 26.0)) {
    svg += fmt::format("<text x=\"{:.0f}\" y=\"11\">{}</text>\n", grid.x(expert), expert);
  }
  for (int64_t layer = grid.first_layer; layer < grid.first_layer + grid.layers; layer += label_step(grid.cell, 12.0)) {
    svg += fmt::format("<text x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\">{}{}</text>\n", kLeft - 6.0,
                       grid.y(layer) + grid.cell / 2.0 + 4.0, layer == grid.first_layer ? "layer " : "", layer);
  }
  return svg;
}

std::string cells_svg(const HeatMap& map, const Grid& grid, const ExpertCountsMap& experts,
                      const std::vector<uint64_t>& levels) {
  std::array<std::string, kLevels> by_level;
  for (const auto& [place, counts] : experts) {
    const auto& [layer, expert] = place;
    const uint64_t count = map.count(counts);
    if (count == 0 || !grid.has(layer, expert)) continue;
    const auto level = std::upper_bound(levels.begin(), levels.end(), count) - levels.begin() - 1;
    by_level[static_cast<size_t>(level)] += fmt::format(
        "<rect x=\"{0:.0f}\" y=\"{1:.0f}\" width=\"{2:.1f}\" height=\"{2:.1f}\"><title>layer {3} expert {4}: {5}"
        "</title></rect>\n",
        grid.x(expert), grid.y(layer), grid.cell - 0.5, layer, expert, count);
  }
  std::string svg;
  for (size_t level = 0; level < levels.size(); ++level) {
    svg += fmt::format("<g fill=\"{}\">\n{}</g>\n", map.colors[level], by_level[level]);
  }
  return svg;
}

std::string legend_html(const HeatMap& map, const std::vector<uint64_t>& levels, uint64_t most) {
  std::string html = "<p class=\"legend\"><i class=\"none\"></i>0";
  for (size_t level = 0; level < levels.size(); ++level) {
    const uint64_t from = levels[level], to = level + 1 < levels.size() ? levels[level + 1] - 1 : most;
    html += fmt::format(" <i style=\"background:{}\"></i>{}", map.colors[level],
                        from == to ? fmt::format("{}", from) : fmt::format("{}–{}", from, to));
  }
  return html + " times</p>\n";
}

/// A bar per layer: hits of what it wanted.
std::string shares_svg(const Grid& grid, const ExpertCountsMap& experts) {
  std::map<int64_t, ExpertCounts> layers;
  for (const auto& [place, counts] : experts) {
    layers[place.first].hits += counts.hits;
    layers[place.first].misses += counts.misses + counts.late;
  }
  const double left = grid.x(grid.experts) + kShareGap;
  std::string svg = fmt::format("<text x=\"{:.0f}\" y=\"11\">0 to 100 % hits</text>\n", left);
  for (const auto& [layer, counts] : layers) {
    if (!grid.has(layer, 0) || counts.wanted() == 0) continue;
    const double share = static_cast<double>(counts.hits) / static_cast<double>(counts.wanted());
    const double height = grid.cell - 1.0;
    svg += fmt::format(
        "<rect x=\"{0:.0f}\" y=\"{1:.1f}\" width=\"{2:.0f}\" height=\"{3:.1f}\" class=\"empty\"/>"
        "<rect x=\"{0:.0f}\" y=\"{1:.1f}\" width=\"{4:.1f}\" height=\"{3:.1f}\" class=\"share\"><title>layer {5}: "
        "{6:.1f} "
        "% hits</title></rect>\n",
        left, grid.y(layer), kShareWidth, height, kShareWidth * share, layer, 100.0 * share);
  }
  return svg;
}

std::string map_html(const HeatMap& map, const Grid& grid, const ExpertCountsMap& experts, bool with_shares) {
  uint64_t most = 0;
  for (const auto& [place, counts] : experts) most = std::max(most, map.count(counts));
  if (most == 0) return fmt::format("<h3>{}</h3>\n<p>None.</p>\n", map.title);
  const std::vector<uint64_t> levels = heat_levels(most);
  const double width = grid.x(grid.experts) + kShareGap + kShareWidth;
  std::string html =
      fmt::format("<h3>{}</h3>\n{}<svg width=\"{:.0f}\" height=\"{:.0f}\">\n", map.title,
                  legend_html(map, levels, most), width, kTop + grid.cell * static_cast<double>(grid.layers));
  html += fmt::format("<rect x=\"{:.0f}\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"empty\"/>\n", kLeft,
                      kTop, grid.cell * static_cast<double>(grid.experts) - 0.5,
                      grid.cell * static_cast<double>(grid.layers) - 0.5);
  html += labels_svg(grid) + cells_svg(map, grid, experts, levels);
  if (with_shares) html += shares_svg(grid, experts);
  return html + "</svg>\n";
}

}  // namespace

std::vector<uint64_t> heat_levels(uint64_t most) {
  std::vector<uint64_t> levels;
  for (size_t i = 0; i < kLevels; ++i) {
    const double least = std::pow(static_cast<double>(most) + 1.0, static_cast<double>(i) / kLevels);
    const auto level = std::max(static_cast<uint64_t>(std::ceil(least - 1e-9)), levels.empty() ? 1 : levels.back() + 1);
    if (level <= most) levels.push_back(level);
  }
  return levels;
}

std::string heat_maps_html(const TraceModel& model, const ExpertCountsMap& experts) {
  const Grid grid(model);
  std::string html;
  for (const HeatMap& map : kMaps) html += map_html(map, grid, experts, &map == &kMaps[0]);
  return html;
}

}  // namespace moraine::tools
