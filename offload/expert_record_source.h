#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "offload/expert_id.h"

namespace moraine::offload {

/// A range of bytes of one file.
struct Extent {
  int file = 0;         ///< index into ExpertRecordSource::files()
  uint64_t offset = 0;  ///< any alignment
  uint64_t size_bytes = 0;
};

/// Where every expert's bytes lie and how they become the record that kernels read (quant/expert_pack.h). Immutable;
/// called from several threads. A pack's record is one extent and is only verified; a checkpoint's is several tensors
/// that are re-laid-out, or quantized, on arrival.
class ExpertRecordSource {
 public:
  virtual ~ExpertRecordSource() = default;

  virtual const std::vector<std::filesystem::path>& files() const = 0;
  /// All experts of the model, ascending.
  virtual std::span<const ExpertId> experts() const = 0;
  /// Bytes of the largest record; every slot of the cache has this size.
  virtual uint64_t max_record_bytes() const = 0;
  virtual uint64_t record_bytes(ExpertId id) const = 0;
  /// What to read, in the order in which finish() gets it.
  virtual std::vector<Extent> extents(ExpertId id) const = 0;
  /// True if the one extent is the record itself, so that it is read straight into its slot.
  virtual bool reads_in_place() const = 0;
  /// XXH3-64 of the bytes that are read in place, if it is known: the store then adds it up while they arrive and calls
  /// finish() only when it differs, to be told what is wrong.
  virtual std::optional<uint64_t> checksum(ExpertId /*id*/) const { return std::nullopt; }
  /// Makes the record. In place: `raw` is the record in its slot (same memory as `record`), to be verified. Otherwise
  /// `raw` holds the extents' bytes one after the other and `record` is the slot to fill. Throws
  /// quant::Error(kChecksum) naming layer, expert, file and offset if bytes are not as written, kBadFile if they make
  /// no sense.
  virtual void finish(ExpertId id, std::span<const std::byte> raw, std::span<std::byte> record) const = 0;
};

}  // namespace moraine::offload
