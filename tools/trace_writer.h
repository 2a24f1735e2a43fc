#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "quant/file_io.h"

namespace moraine::tools {

/// Writes events in the trace format of Chrome's viewers (chrome://tracing, Perfetto) as they come: a JSON array, one
/// event per line. Memory stays at one buffer; what is flushed before a crash is readable, because the format allows
/// the closing bracket to be missing. Times in microseconds. Not thread-safe.
class TraceWriter {
 public:
  /// Creates (or empties) the file. Throws quant::Error(kIo / kNotEnough).
  explicit TraceWriter(std::filesystem::path file);
  /// Closes the array.
  ~TraceWriter();
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;

  /// `args`: members of a JSON object without its braces, may be empty.
  void span(int track, std::string_view name, double begin_us, double end_us, const std::string& args);
  void instant(int track, std::string_view name, double at_us, const std::string& args);
  /// Both ends of something that overlaps others of its kind; `id` joins them.
  void begin(std::string_view category, std::string_view name, uint64_t id, double at_us, const std::string& args);
  void end(std::string_view category, std::string_view name, uint64_t id, double at_us);
  void counter(std::string_view name, double at_us, const std::string& args);
  /// A track's name, or facts about the whole trace.
  void metadata(int track, std::string_view name, const std::string& args);

  /// Hands over what is buffered.
  void flush();
  /// Why the trace ended early, or empty. A trace that can't be written never disturbs what is traced.
  const std::string& failure() const { return failure_; }

 private:
  void event(const std::string& members);

  std::filesystem::path file_;
  quant::UniqueFd fd_;
  std::string buffer_ = "[\n";
  uint64_t written_bytes_ = 0;
  std::string failure_;
};

}  // namespace moraine::tools
