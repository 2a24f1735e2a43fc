#include "tools/trace_writer.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <cmath>
#include <utility>

#include "quant/error.h"

namespace moraine::tools {
namespace {

constexpr size_t kBufferBytes = 64u << 10;

std::string with_args(const std::string& args) {
  return args.empty() ? "" : fmt::format(R"(,"args":{{{}}})", args);
}

/// To tenths, as times are written.
double rounded(double at_us) {
  return std::round(at_us * 10.0) / 10.0;
}

}  // namespace

TraceWriter::TraceWriter(std::filesystem::path file)
    : file_(std::move(file)), fd_(open(file_.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666)) {
  if (!fd_) throw quant::system_error(errno, "could not write the trace", file_, "name a file you may write to");
}

TraceWriter::~TraceWriter() {
  buffer_ += R"({"ph":"M","pid":1,"tid":0,"name":"end"})"
             "\n]\n";
  flush();
}

void TraceWriter::flush() {
  try {
    if (failure_.empty()) quant::pwrite_all(fd_.get(), std::as_bytes(std::span(buffer_)), written_bytes_, file_);
  } catch (const quant::Error& error) {
    failure_ = error.what();
  }
  written_bytes_ += buffer_.size();
  buffer_.clear();
}

void TraceWriter::event(const std::string& members) {
  buffer_ += "{" + members + "},\n";
  if (buffer_.size() >= kBufferBytes) flush();
}

void TraceWriter::span(int track, std::string_view name, double begin_us, double end_us, const std::string& args) {
  // Rounded apart, two neighbours could overlap, and viewers take what overlaps for nested.
  const double begin = rounded(begin_us);
  event(fmt::format(R"("ph":"X","pid":1,"tid":{},"name":"{}","ts":{:.1f},"dur":{:.1f}{})", track, name, begin,
                    rounded(end_us) - begin, with_args(args)));
}

void TraceWriter::instant(int track, std::string_view name, double at_us, const std::string& args) {
  event(fmt::format(R"("ph":"i","s":"t","pid":1,"tid":{},"name":"{}","ts":{:.1f}{})", track, name, at_us,
                    with_args(args)));
}

void TraceWriter::begin(std::string_view category, std::string_view name, uint64_t id, double at_us,
                        const std::string& args) {
  event(fmt::format(R"("ph":"b","pid":1,"cat":"{}","name":"{}","id":{},"ts":{:.1f}{})", category, name, id, at_us,
                    with_args(args)));
}

void TraceWriter::end(std::string_view category, std::string_view name, uint64_t id, double at_us) {
  event(fmt::format(R"("ph":"e","pid":1,"cat":"{}","name":"{}","id":{},"ts":{:.1f})", category, name, id, at_us));
}

void TraceWriter::counter(std::string_view name, double at_us, const std::string& args) {
  event(fmt::format(R"("ph":"C","pid":1,"name":"{}","ts":{:.1f}{})", name, at_us, with_args(args)));
}

void TraceWriter::metadata(int track, std::string_view name, const std::string& args) {
  event(fmt::format(R"("ph":"M","pid":1,"tid":{},"name":"{}"{})", track, name, with_args(args)));
}

}  // namespace moraine::tools
