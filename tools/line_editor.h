#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "tools/console.h"
#include "tools/signals.h"

namespace moraine::tools {

/// What a person did at the prompt.
struct TypedLine {
  enum class Kind {
    kText,         ///< a line, perhaps empty
    kEnd,          ///< Ctrl-D, or the end of a pipe
    kInterrupted,  ///< Ctrl-C, or a request to terminate; `text` is what had been typed
  } kind = Kind::kEnd;
  std::string text;
};

/// Where lines come from. Throws quant::Error(kUsage) for a line of more than 4 MiB, kIo if standard input can't be
/// read.
class LineEditor {
 public:
  virtual ~LineEditor() = default;
  virtual TypedLine next(const std::string& prompt) = 0;
  /// A person types, rather than a pipe.
  virtual bool interactive() const = 0;
};

/// At a terminal: editing, history (kept in `history_file`, readable by its owner alone, unless the path is empty) and
/// the prompt on stderr. From a pipe or file: its lines as they are, no prompt. `signals` is asked after every
/// interruption.
std::unique_ptr<LineEditor> make_line_editor(Console& console, const SignalWatch& signals,
                                             const std::filesystem::path& history_file);

}  // namespace moraine::tools
