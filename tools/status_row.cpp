#include "tools/status_row.h"

#include <fmt/format.h>

namespace moraine::tools {
namespace {

constexpr int kLeastRows = 4;  // a smaller terminal has no row to give

}  // namespace

StatusRow::~StatusRow() {
  free();
}

void StatusRow::show(std::string_view text) {
  if (!console_.err_is_terminal()) return;
  const int rows = console_.height();
  if (rows != rows_) {
    const bool begins = rows_ == 0;
    free();
    if (rows < kLeastRows) return;
    keep(rows, begins);
  }
  // Save the cursor, go to the last row, write, come back. The last column stays free: writing there may wrap.
  console_.err(fmt::format("\0337\033[{};1H{}{}{}\033[K\0338", rows_, console_.dim_on(),
                           cut_to_columns(text, console_.width() - 1), console_.dim_off()));
}

void StatusRow::keep(int rows, bool at_line_start) {
  // A cursor in the last row makes room first. Setting margins moves the cursor, so it is put back.
  console_.err(
      fmt::format("{}\0337\033[1;{}r\0338{}", at_line_start ? "\n" : "", rows - 1, at_line_start ? "\033[1A" : ""));
  rows_ = rows;
}

void StatusRow::free() {
  if (rows_ == 0) return;
  console_.err(fmt::format("\0337\033[r\033[{};1H\033[K\0338", rows_));
  rows_ = 0;
}

}  // namespace moraine::tools
