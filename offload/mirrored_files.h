#pragma once

#include <filesystem>
#include <span>
#include <vector>

namespace moraine::offload {

/// One place where a file's bytes lie.
struct FileCopy {
  int drive = 0;  ///< index into MirroredFiles::drives
  int file = 0;   ///< index into MirroredFiles::paths
};

/// A model's files and their copies in mirror directories, each mirror meant to lie on a drive of its own.
struct MirroredFiles {
  std::vector<std::filesystem::path> drives;  ///< [1 + mirrors] directories, for messages; 0 is the model's own
  std::vector<std::filesystem::path> paths;   ///< the model's own files, then those of the mirrors
  std::vector<std::vector<FileCopy>> copies;  ///< [files of the model] where each can be read, its own place first
  std::vector<int> shared_with = {};          ///< [drives] the first one of the same file system, else itself
};

/// Most mirrors of one model.
constexpr int kMaxMirrors = 15;

/// Finds the files that lie under the same name in `mirrors`; a mirror may hold only some of them. What it holds must
/// be the same: size, and the bytes at the start, the middle and the end (the headers of checkpoints and GGUF files
/// among them); bytes between are watched by the checksums of the records, where there are any. Throws quant::Error:
/// kBadFile naming the file that differs, or the mirror that holds no file or is the model's own; kUsage for too many
/// mirrors, or for a model that reads nothing (`files` empty); kIo.
MirroredFiles find_mirrors(std::span<const std::filesystem::path> files,
                           std::span<const std::filesystem::path> mirrors);

}  // namespace moraine::offload
