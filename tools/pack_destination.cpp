#include "tools/pack_destination.h"

#include <fmt/format.h>
#include <sys/statvfs.h>

#include <limits>

#include "quant/checksum.h"
#include "quant/error.h"
#include "quant/file_io.h"
#include "quant/json.h"
#include "tools/byte_size.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIdentityFile = "moraine_source.json";
constexpr uint64_t kSlackBytes = 16u << 20;  // text files, index, journals

/// Bytes of the plain files in a directory, 0 if it does not exist.
uint64_t bytes_in(const fs::path& directory) {
  uint64_t total = 0;
  std::error_code fault;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, fault)) {
    if (entry.is_regular_file(fault)) total += entry.file_size(fault);
  }
  return total;
}

[[noreturn]] void refuse_destination(const std::string& what, const fs::path& file) {
  throw quant::Error(quant::ErrorKind::kUsage,
                     {.what = what, .file = file, .action = "choose a new directory, or empty this one first"});
}

uint64_t checksum_of(const std::string& text) {
  return quant::checksum(std::as_bytes(std::span(text)));
}

}  // namespace

uint64_t free_disk_bytes(const fs::path& path) {
  struct statvfs status {};
  if (statvfs(path.c_str(), &status) != 0) throw quant::system_error(errno, "could not ask for free disk space", path);
  // File systems that hold no files of ours (/proc) have no size; writing there fails by itself, with a better reason.
  if (status.f_blocks == 0) return std::numeric_limits<uint64_t>::max();
  return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
}

PackDestination::PackDestination(fs::path directory, std::string identity, const std::string& other)
    : directory_(std::move(directory)), identity_(std::move(identity)) {
  std::error_code fault;
  const fs::file_status status = fs::status(directory_, fault);
  if (!fs::exists(status)) return;
  if (!fs::is_directory(status)) refuse_destination("the destination is no directory", directory_);
  const fs::path identity_file = directory_ / kIdentityFile;
  if (!fs::exists(identity_file, fault)) {
    const fs::directory_iterator entries(directory_, fault);
    if (fault) throw quant::system_error(fault.value(), "could not look into the destination", directory_);
    // A crash right at the start may have left the identity's temporary file.
    for (const fs::directory_entry& entry : entries) {
      if (entry.path().filename() == std::string(kIdentityFile) + ".tmp") continue;
      refuse_destination("the destination holds files that are no part of a conversion", entry.path());
    }
    return;
  }
  if (quant::read_text(identity_file, 1u << 20) != identity_) refuse_destination(other, directory_);
  finished_ = quant::PackIndex::present(directory_);
  resumes_ = !finished_;
}

void PackDestination::check_space(uint64_t total_bytes, const FreeBytes& free_bytes) const {
  fs::path existing = fs::absolute(directory_);
  std::error_code ignored;
  while (!fs::exists(existing, ignored) && existing.has_relative_path()) existing = existing.parent_path();
  const uint64_t free = free_bytes ? free_bytes(existing) : free_disk_bytes(existing);
  const uint64_t present = bytes_in(directory_);
  const uint64_t wanted = total_bytes + kSlackBytes;
  const uint64_t missing = wanted > present ? wanted - present : 0;
  if (missing <= free) return;
  throw quant::Error(quant::ErrorKind::kNotEnough,
                     {.what = "not enough room on the disk for the pack",
                      .file = directory_,
                      .expected = fmt::format("{} free", byte_size_text(missing)),
                      .got = byte_size_text(free),
                      .action = "free space or choose another disk; what is written already is kept"});
}

void PackDestination::begin() const {
  std::error_code fault;
  fs::create_directories(directory_, fault);
  if (fault) {
    throw quant::system_error(fault.value(), "could not create the destination", directory_,
                              "choose a directory that can be written");
  }
  quant::write_file_atomically(directory_ / kIdentityFile, identity_);
}

void PackDestination::add_text(const std::string& name, const std::string& text, quant::PackIndex& pack) const {
  quant::write_file_atomically(directory_ / name, text);
  pack.file_checksums.emplace_back(name, checksum_of(text));
}

void PackDestination::add_identity(quant::PackIndex& pack) const {
  pack.file_checksums.emplace_back(kIdentityFile, checksum_of(identity_));
}

}  // namespace moraine::tools
