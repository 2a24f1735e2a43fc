#include "quant/write_journal.h"

#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "quant/checksum.h"
#include "quant/error.h"

namespace moraine::quant {
namespace {

constexpr uint64_t kMostLineBytes = 40;

std::string line_of(size_t part, uint64_t sum) {
  return fmt::format("{} {}\n", part, checksum_text(sum));
}

/// The checksums of the lines behind the header; a line that is not exactly what was written ends the list.
std::vector<uint64_t> parse_lines(std::string_view text) {
  std::vector<uint64_t> sums;
  for (size_t end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
    const std::string_view line = text.substr(0, end + 1);
    uint64_t sum = 0;
    const size_t space = std::min(line.find(' '), end);
    std::from_chars(line.data() + std::min(space + 1, end), line.data() + end, sum, 16);
    if (line != line_of(sums.size(), sum)) break;
    sums.push_back(sum);
    text.remove_prefix(end + 1);
  }
  return sums;
}

}  // namespace

WriteJournal::WriteJournal(std::filesystem::path file, const std::string& identity, size_t most_parts)
    : file_(std::move(file)), fd_(open_for_update(file_)), header_bytes_(identity.size() + 1) {
  if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) throw system_error(errno, "could not lock the file", file_);
    throw Error(ErrorKind::kIo, {.what = "another conversion is writing what this journal is about",
                                 .file = file_,
                                 .action = "wait for it to end, or choose another destination"});
  }
  const std::string header = identity + "\n";
  std::string text(std::min(file_bytes(fd_.get(), file_), header_bytes_ + kMostLineBytes * most_parts), '\0');
  pread_exact(fd_.get(), std::as_writable_bytes(std::span(text)), 0, file_);
  if (text.starts_with(header)) {
    checksums_ = parse_lines(std::string_view(text).substr(header_bytes_));
    keep(most_parts);
  } else {
    resize_file(fd_.get(), 0, file_);  // first, so that no line of something else can follow the new header
    pwrite_all(fd_.get(), std::as_bytes(std::span(header)), 0, file_);
    size_bytes_ = header_bytes_;
  }
}

void WriteJournal::keep(size_t parts) {
  checksums_.resize(std::min(parts, checksums_.size()));
  size_bytes_ = header_bytes_;
  for (size_t part = 0; part < checksums_.size(); ++part) size_bytes_ += line_of(part, checksums_[part]).size();
  resize_file(fd_.get(), size_bytes_, file_);
}

void WriteJournal::append(uint64_t checksum) {
  const std::string line = line_of(checksums_.size(), checksum);
  pwrite_all(fd_.get(), std::as_bytes(std::span(line)), size_bytes_, file_);
  size_bytes_ += line.size();
  checksums_.push_back(checksum);
}

void WriteJournal::remove() {
  ::unlink(file_.c_str());
}

}  // namespace moraine::quant
