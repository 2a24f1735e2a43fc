#include "tools/source_hashes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <mutex>
#include <optional>

#include "quant/error.h"
#include "quant/file_io.h"
#include "quant/json.h"
#include "quant/sha256.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;

constexpr size_t kHexDigits = 64;
constexpr uint64_t kMaxTextBytes = 16u << 20;
constexpr uint64_t kPieceBytes = 4u << 20;

/// `text` as a SHA-256 in lower case; nothing if it is none.
std::optional<std::string> sha256_of(std::string_view text) {
  if (text.size() != kHexDigits) return std::nullopt;
  std::string hash(text);
  for (char& c : hash) {
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return std::nullopt;
  }
  return hash;
}

std::vector<std::string> lines_of(const fs::path& file) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return {};
  const std::string text = quant::read_text(file, kMaxTextBytes);
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    if (line.ends_with('\r')) line.pop_back();
    lines.push_back(std::move(line));
    begin = end + 1;
  }
  return lines;
}

using HashesByName = std::multimap<std::string, StatedHash>;

/// The lines "<hash>  <name>" and "<hash> *<name>" of a file of sha256sum(1); a bare hash is about the file that the
/// list is named after.
void add_list(const fs::path& list, HashesByName& hashes) {
  for (const std::string& line : lines_of(list)) {
    const auto hash = sha256_of(std::string_view(line).substr(0, kHexDigits));
    if (!hash) continue;
    std::string name = line.substr(kHexDigits);
    name.erase(0, name.find_first_not_of(" *"));
    if (name.empty()) name = list.stem().string();
    if (name.starts_with("./")) name.erase(0, 2);
    hashes.emplace(name, StatedHash{.file = {}, .sha256 = *hash, .stated_by = list.filename().string()});
  }
}

/// All lists of a directory.
HashesByName listed_hashes(const fs::path& directory) {
  HashesByName hashes;
  std::error_code fault;
  for (fs::directory_iterator entry(directory, fault), end; !fault && entry != end; entry.increment(fault)) {
    const fs::path& file = entry->path();
    if (file.extension() == ".sha256" || file.filename() == "SHA256SUMS") add_list(file, hashes);
  }
  return hashes;
}

/// SHA-256 of a whole file; `add` hears of the bytes.
std::string sha256_of_file(const fs::path& file, std::atomic<uint64_t>& done_bytes) {
  const quant::UniqueFd descriptor = quant::open_for_read(file);
  const uint64_t size_bytes = quant::file_bytes(descriptor.get(), file);
  std::vector<std::byte> piece(std::min(size_bytes, kPieceBytes));
  quant::Sha256 hash;
  for (uint64_t offset = 0; offset < size_bytes; offset += piece.size()) {
    const auto part = std::span(piece).first(std::min<uint64_t>(piece.size(), size_bytes - offset));
    quant::pread_exact(descriptor.get(), part, offset, file);
    hash.update(part);
    done_bytes += part.size();
  }
  return hash.hex_digest();
}

int64_t change_ns(const fs::path& file) {
  std::error_code ignored;
  const auto time = fs::last_write_time(file, ignored).time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

}  // namespace

std::vector<StatedHash> stated_hashes(const std::vector<fs::path>& files) {
  std::vector<StatedHash> hashes;
  std::map<fs::path, HashesByName> lists;  // by directory
  for (const fs::path& file : files) {
    const fs::path directory = file.parent_path().empty() ? "." : file.parent_path();
    if (!lists.contains(directory)) lists[directory] = listed_hashes(directory);
    const std::string name = file.filename().string();
    const auto [first, last] = lists[directory].equal_range(name);
    for (auto listed = first; listed != last; ++listed) {
      hashes.push_back(listed->second);
      hashes.back().file = file;
    }
    // Three lines: commit, ETag, time. The ETag of a large file is its SHA-256, of a small one Git's 40 digits.
    const fs::path metadata = directory / ".cache" / "huggingface" / "download" / (name + ".metadata");
    const std::vector<std::string> lines = lines_of(metadata);
    if (const auto hash = lines.size() > 1 ? sha256_of(lines[1]) : std::nullopt) {
      hashes.push_back({.file = file, .sha256 = *hash, .stated_by = metadata.filename().string()});
    }
    std::error_code no_link;
    const fs::path target = fs::read_symlink(file, no_link);
    if (const auto hash = sha256_of(target.filename().string()); hash && target.parent_path().filename() == "blobs") {
      hashes.push_back({.file = file, .sha256 = *hash, .stated_by = "the Hugging Face cache"});
    }
  }
  return hashes;
}

std::string SourceHashes::line_of(const File& file) {
  return fmt::format("{} {} {} {}\n", file.stated.front().sha256, file.size_bytes, file.changed_ns,
                     file.path.filename().string());
}

SourceHashes::SourceHashes(std::vector<StatedHash> hashes, fs::path record) : record_(std::move(record)) {
  std::vector<File> files;
  for (StatedHash& hash : hashes) {
    if (files.empty() || files.back().path != hash.file) {
      files.push_back({.path = hash.file,
                       .size_bytes = quant::file_bytes(hash.file),
                       .changed_ns = change_ns(hash.file),
                       .stated = {}});
    }
    files.back().stated.push_back(std::move(hash));
  }
  stated_files_ = files.size();
  const std::vector<std::string> lines = lines_of(record_);  // one that a crash tore is no file's line
  for (File& file : files) {
    const std::string line = line_of(file);
    if (std::find(lines.begin(), lines.end(), line.substr(0, line.size() - 1)) != lines.end()) {
      known_ += line;
    } else {
      unchecked_bytes_ += file.size_bytes;
      unchecked_.push_back(std::move(file));
    }
  }
}

void SourceHashes::check(int threads, const Progress& progress) {
  if (unchecked_.empty()) return;
  std::atomic<uint64_t> done_bytes = 0;
  std::atomic<size_t> next = 0;
  std::mutex mutex;  // of known_ and differing
  std::map<size_t, std::string> differing;
  const auto work = [&] {
    for (size_t i = next++; i < unchecked_.size(); i = next++) {
      const File& file = unchecked_[i];
      const std::string got = sha256_of_file(file.path, done_bytes);
      const auto other =
          std::find_if(file.stated.begin(), file.stated.end(), [&](const auto& hash) { return hash.sha256 != got; });
      const std::lock_guard lock(mutex);
      if (other == file.stated.end()) {
        known_ += line_of(file);
        quant::write_file_atomically(record_, known_);
      } else {
        differing[i] = fmt::format("{} ({} by {}, {} on the disk)", quant::printable(file.path.filename().string()),
                                   other->sha256, quant::printable(other->stated_by), got);
      }
    }
  };
  std::vector<std::future<void>> workers;  // a future of std::async waits for its thread when destroyed
  for (int i = 0; i < std::clamp(threads, 1, static_cast<int>(unchecked_.size())); ++i) {
    workers.push_back(std::async(std::launch::async, work));
  }
  for (std::future<void>& worker : workers) {
    while (worker.wait_for(std::chrono::milliseconds(100)) != std::future_status::ready) {
      if (progress) progress(done_bytes, unchecked_bytes_, "SHA-256");
    }
    worker.get();
  }
  if (differing.empty()) return;
  std::vector<std::string> names;
  for (const auto& [index, text] : differing) names.push_back(text);
  throw quant::Error(quant::ErrorKind::kChecksum,
                     {.what = fmt::format("{} of {} model files are not what was published: {}", names.size(),
                                          stated_files_, fmt::join(names, ", ")),
                      .file = unchecked_.front().path.parent_path(),
                      .action = "download these files again"});
}

void SourceHashes::forget() const {
  std::error_code ignored;
  fs::remove(record_, ignored);
}

}  // namespace moraine::tools
