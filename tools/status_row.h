#pragma once

#include <string_view>

#include "tools/console.h"

namespace moraine::tools {

/// The last row of the terminal on stderr, kept for a line that stays while text scrolls above it (DECSTBM, the margins
/// of the VT100, as apt does). The terminal is as before when this ends. Nothing happens without a terminal.
class StatusRow {
 public:
  explicit StatusRow(Console& console) : console_(console) {}
  ~StatusRow();
  StatusRow(const StatusRow&) = delete;
  StatusRow& operator=(const StatusRow&) = delete;

  /// Shows `text`, dimmed and cut to the width. The first time the cursor must be at the start of a line.
  void show(std::string_view text);

 private:
  void keep(int rows, bool at_line_start);
  void free();

  Console& console_;
  int rows_ = 0;  // of the terminal when its last row was taken; 0: it is not taken
};

}  // namespace moraine::tools
