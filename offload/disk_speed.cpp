#include "offload/disk_speed.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "offload/file_set.h"
#include "offload/open_reader.h"
#include "quant/aligned_buffer.h"

namespace moraine::offload {
namespace {

using Clock = std::chrono::steady_clock;

struct Piece {
  int file = 0;
  uint64_t offset = 0;
};

/// All whole pieces of the files in random order; none if one of the files can't be read past the page cache.
std::vector<Piece> shuffled_pieces(std::span<const std::filesystem::path> files, const DiskSpeedOptions& options) {
  const FileSet opened(files);
  std::vector<Piece> pieces;
  for (int file = 0; file < opened.count(); ++file) {
    if (!opened.direct(file)) return {};
    const uint64_t count = opened.size_bytes(file) / options.piece_bytes;
    for (uint64_t i = 0; i < count; ++i) pieces.push_back({file, i * options.piece_bytes});
  }
  std::shuffle(pieces.begin(), pieces.end(), std::mt19937_64(options.seed));
  return pieces;
}

}  // namespace

std::optional<double> measure_disk_gb_per_s(std::span<const std::filesystem::path> files,
                                            const DiskSpeedOptions& options) {
  if (files.empty() && options.mirrors.empty()) return std::nullopt;
  const auto reader = open_reader(options.reader, files, {}, options.mirrors);
  return measure_disk_gb_per_s(files, options, *reader);
}

std::optional<double> measure_disk_gb_per_s(std::span<const std::filesystem::path> files,
                                            const DiskSpeedOptions& options, BlockReader& reader) {
  MORAINE_CHECK(options.piece_bytes > 0 && options.piece_bytes % FileSet::kAlignmentBytes == 0);
  MORAINE_CHECK(options.pieces_in_flight > 0);
  const std::vector<Piece> pieces = shuffled_pieces(files, options);
  if (pieces.empty()) return std::nullopt;
  const size_t places = std::min(pieces.size(), static_cast<size_t>(options.pieces_in_flight));
  quant::AlignedBuffer buffer(places * options.piece_bytes);  // [places, piece_bytes]
  std::vector<size_t> left(places, 0);                        // requests under way of the piece at each place
  size_t begun = 0, in_flight = 0;
  std::vector<ReadRequest> requests;
  const auto begin_read = [&](uint64_t place) {
    const Piece piece = pieces[begun++];
    const std::span<std::byte> whole = buffer.span().subspan(place * options.piece_bytes, options.piece_bytes);
    requests.clear();
    for (uint64_t at = 0; at < whole.size(); at += kRequestBytes) {
      const uint64_t size_bytes = std::min(kRequestBytes, whole.size() - at);
      requests.push_back({.tag = place,
                          .file = piece.file,
                          .offset = piece.offset + at,
                          .destination = whole.subspan(at, size_bytes)});
    }
    left[place] = requests.size();
    in_flight += requests.size();
    reader.submit(requests);
  };
  const auto start = Clock::now();
  const auto elapsed_s = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  for (uint64_t place = 0; place < places; ++place) begin_read(place);
  uint64_t bytes = 0, lead_bytes = 0;
  double lead_s = 0.0;
  std::optional<ReadFailure> failure;
  std::vector<ReadCompletion> completions;
  while (in_flight > 0) {
    completions.clear();
    reader.wait(completions);
    for (const ReadCompletion& completion : completions) {
      --in_flight;
      bytes += completion.bytes_read;
      if (completion.failure) failure = completion.failure;
      const double now_s = elapsed_s();
      if (lead_s == 0.0 && now_s >= options.lead_s && options.lead_s > 0.0) {
        lead_s = now_s;
        lead_bytes = bytes;
      }
      const bool has_time = !failure && begun < pieces.size() && now_s < options.lead_s + options.max_s;
      if (--left[completion.tag] == 0 && has_time) begin_read(completion.tag);
    }
  }
  // Thrown only now: the buffer must outlive every read.
  if (failure) throw quant::Error(failure->kind, failure->detail);
  return static_cast<double>(bytes - lead_bytes) / (elapsed_s() - lead_s) / 1e9;
}

}  // namespace moraine::offload
