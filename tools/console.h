#pragma once

#include <atomic>
#include <cstdio>
#include <string>
#include <string_view>

namespace moraine::tools {

/// Where the program talks: answers and results on stdout, everything meant for a person's eyes on stderr. Passed to
/// whoever prints; knows which of the two is a terminal.
class Console {
 public:
  /// stdout and stderr.
  Console();
  /// For tests: any two streams, and whether each counts as a terminal.
  Console(std::FILE* out, std::FILE* err, bool out_is_terminal, bool err_is_terminal);

  /// Writes to stdout at once. Throws quant::Error(kNotEnough / kIo) if it can't be written, so that a full disk never
  /// passes for a finished answer.
  void out(std::string_view text);
  /// Writes to stderr at once, as it is.
  void err(std::string_view text);
  /// One line on stderr, after whatever unfinished progress line stands there: "moraine: …".
  void line(std::string_view message);

  bool out_is_terminal() const { return out_is_terminal_; }
  bool err_is_terminal() const { return err_is_terminal_; }
  /// Columns of the terminal on stderr; 80 if unknown.
  int width() const;
  /// Its rows; 24 if unknown.
  int height() const;

  /// Escape sequences that switch stderr to dim text and back; empty if it is no terminal (or NO_COLOR is set).
  std::string_view dim_on() const;
  std::string_view dim_off() const;

  /// Replaces the terminal's present line on stderr by `text` (cut to the width); nothing without a terminal.
  void redraw(std::string_view text);
  /// Erases a line drawn by redraw().
  void clear_redrawn();

 private:
  std::FILE* out_;
  std::FILE* err_;
  bool out_is_terminal_;
  bool err_is_terminal_;
  bool color_;
  std::atomic<bool> redrawn_ = false;  // the present line on stderr is one of redraw(); a reader may warn meanwhile
};

/// The first `columns` characters of UTF-8 `text`, each counted as one column: good enough for our own labels.
std::string_view cut_to_columns(std::string_view text, int columns);

/// `text` without what a terminal would obey: control characters except line feed and tab become U+FFFD. Model output
/// and file names go through this before they reach a terminal.
std::string terminal_safe(std::string_view text);

}  // namespace moraine::tools
