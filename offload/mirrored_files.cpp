#include "offload/mirrored_files.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <system_error>

#include "quant/error.h"
#include "quant/file_io.h"

namespace moraine::offload {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kSampleBytes = 256u << 10;

[[noreturn]] void refuse(const std::string& what, const fs::path& file, const std::string& action,
                         const std::string& expected = {}, const std::string& got = {}) {
  throw quant::Error(quant::ErrorKind::kBadFile,
                     {.what = what, .file = file, .expected = expected, .got = got, .action = action});
}

void check_sample(int fd, const fs::path& file, int mirror_fd, const fs::path& mirror, uint64_t offset,
                  uint64_t size_bytes) {
  std::vector<std::byte> ours(size_bytes), theirs(size_bytes);
  quant::pread_exact(fd, ours, offset, file);
  quant::pread_exact(mirror_fd, theirs, offset, mirror);
  const auto [our, their] = std::mismatch(ours.begin(), ours.end(), theirs.begin());
  if (our == ours.end()) return;
  throw quant::Error(quant::ErrorKind::kBadFile,
                     {.what = "the mirror holds other bytes than the model",
                      .file = mirror,
                      .offset = offset + static_cast<uint64_t>(our - ours.begin()),
                      .expected = "the bytes of " + file.string(),
                      .action = "copy the model's files into the mirror again, or leave out --stripe"});
}

/// Throws unless `mirror` looks like a copy of `file`.
void check_copy(const fs::path& file, const fs::path& mirror) {
  const quant::UniqueFd fd = quant::open_for_read(file);
  const quant::UniqueFd mirror_fd = quant::open_for_read(mirror);
  const uint64_t size_bytes = quant::file_bytes(fd.get(), file);
  const uint64_t mirror_bytes = quant::file_bytes(mirror_fd.get(), mirror);
  if (mirror_bytes != size_bytes) {
    refuse("the mirror's file has another size than the model's", mirror,
           "copy it again: it is cut short or belongs to another model", fmt::format("{} bytes", size_bytes),
           fmt::format("{} bytes", mirror_bytes));
  }
  const uint64_t sample_bytes = std::min(kSampleBytes, size_bytes);
  for (const uint64_t offset : {uint64_t{0}, (size_bytes - sample_bytes) / 2, size_bytes - sample_bytes}) {
    check_sample(fd.get(), file, mirror_fd.get(), mirror, offset, sample_bytes);
  }
}

/// The file system that a file lies on; nothing if it can't be asked.
std::optional<dev_t> device_of(const fs::path& file) {
  struct stat status = {};
  if (::stat(file.c_str(), &status) != 0) return std::nullopt;
  return status.st_dev;
}

}  // namespace

MirroredFiles find_mirrors(std::span<const fs::path> files, std::span<const fs::path> mirrors) {
  if (files.empty()) {
    throw quant::Error(
        quant::ErrorKind::kUsage,
        {.what = "no experts of this model are read here, so a mirror is of no use", .action = "leave out --stripe"});
  }
  if (mirrors.size() > static_cast<size_t>(kMaxMirrors)) {
    throw quant::Error(quant::ErrorKind::kUsage, {.what = fmt::format("{} mirrors", mirrors.size()),
                                                  .expected = fmt::format("at most {}", kMaxMirrors)});
  }
  MirroredFiles result{.drives = {files[0].parent_path()}, .paths = {files.begin(), files.end()}, .copies = {}};
  for (size_t file = 0; file < files.size(); ++file) result.copies.push_back({{0, static_cast<int>(file)}});
  std::vector<std::optional<dev_t>> devices = {device_of(files[0])};  // [drives]
  for (const fs::path& mirror : mirrors) {
    const int drive = static_cast<int>(result.drives.size());
    result.drives.push_back(mirror);
    const size_t before = result.paths.size();
    for (size_t file = 0; file < files.size(); ++file) {
      const fs::path copy = mirror / files[file].filename();
      std::error_code absent;
      if (!fs::exists(copy, absent)) continue;
      if (fs::equivalent(copy, files[file], absent)) {
        refuse("a mirror must be a copy: this is the model's own file", copy,
               "name a directory on another drive that the model was copied to");
      }
      check_copy(files[file], copy);
      result.copies[file].push_back({drive, static_cast<int>(result.paths.size())});
      result.paths.push_back(copy);
    }
    if (result.paths.size() == before) {
      refuse("the mirror holds none of the model's files", mirror,
             fmt::format("copy them there (cp {} …), or leave out --stripe", files[0].string()));
    }
    devices.push_back(device_of(result.paths[before]));
  }
  for (const std::optional<dev_t>& device : devices) {
    const auto self = result.shared_with.size();
    const auto first = std::find(devices.begin(), devices.end(), device) - devices.begin();
    result.shared_with.push_back(device ? static_cast<int>(first) : static_cast<int>(self));
  }
  return result;
}

}  // namespace moraine::offload
