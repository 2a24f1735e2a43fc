#include "tools/export_journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "quant/checksum.h"
#include "quant/error.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kMaxJournalBytes = 64u << 20;

std::string line_of(size_t part, uint64_t sum) {
  return fmt::format("{} {}\n", part, quant::checksum_text(sum));
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

ExportJournal::ExportJournal(const std::filesystem::path& file, const std::string& identity)
    : path_(file), header_(identity + "\n") {
  path_ += ".journal";
  fd_ = quant::UniqueFd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd_) {
    throw quant::system_error(errno, "could not create the file", path_,
                              "check that the directory exists and is writable");
  }
  if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) throw quant::system_error(errno, "could not lock the file", path_);
    throw quant::Error(quant::ErrorKind::kIo, {.what = "another conversion is writing this file",
                                               .file = path_,
                                               .action = "wait for it to end, or choose another destination"});
  }
  std::string text(std::min(quant::file_bytes(fd_.get(), path_), kMaxJournalBytes), '\0');
  quant::pread_exact(fd_.get(), std::as_writable_bytes(std::span(text)), 0, path_);
  if (text.starts_with(header_)) checksums_ = parse_lines(std::string_view(text).substr(header_.size()));
  keep(checksums_.size());
}

void ExportJournal::keep(size_t parts) {
  checksums_.resize(std::min(parts, checksums_.size()));
  std::string text = header_;
  for (size_t part = 0; part < checksums_.size(); ++part) text += line_of(part, checksums_[part]);
  // Cut first: no line of before may follow the new ones.
  if (::ftruncate(fd_.get(), 0) != 0) throw quant::system_error(errno, "could not shorten the file", path_);
  quant::pwrite_all(fd_.get(), std::as_bytes(std::span(text)), 0, path_);
  size_bytes_ = text.size();
}

void ExportJournal::append(uint64_t checksum) {
  const std::string line = line_of(checksums_.size(), checksum);
  quant::pwrite_all(fd_.get(), std::as_bytes(std::span(line)), size_bytes_, path_);
  size_bytes_ += line.size();
  checksums_.push_back(checksum);
}

void ExportJournal::remove() {
  ::unlink(path_.c_str());
}

}  // namespace moraine::tools
