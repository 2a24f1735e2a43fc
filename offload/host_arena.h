#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace moraine::offload {

/// Where an arena's memory comes from; gpu/ may hand in pinned memory.
class HostMemory {
 public:
  virtual ~HostMemory() = default;
  /// `size_bytes` > 0 bytes whose address is a multiple of 4096, without touching them. Throws
  /// quant::Error(kNotEnough) with the size.
  virtual std::byte* take(uint64_t size_bytes) = 0;
  virtual void give_back(std::byte* memory, uint64_t size_bytes) noexcept = 0;
};

/// Anonymous pages of the system, huge ones from 2 MiB on (quant/huge_pages.h).
class MappedMemory : public HostMemory {
 public:
  std::byte* take(uint64_t size_bytes) override;
  void give_back(std::byte* memory, uint64_t size_bytes) noexcept override;
};

/// Equal slots for records, each aligned to 4096 bytes, so that O_DIRECT reads and SIMD loads can use them. Memory is
/// touched, and so counted by the system, when a slot is first filled.
class HostArena {
 public:
  static constexpr uint64_t kSlotAlignmentBytes = 4096;

  /// Bytes that a slot for records of `record_bytes` takes.
  static uint64_t slot_bytes_for(uint64_t record_bytes);

  /// `memory` null: MappedMemory. Throws quant::Error(kNotEnough).
  HostArena(uint64_t record_bytes, int slot_count, std::shared_ptr<HostMemory> memory = nullptr);
  ~HostArena();
  HostArena(const HostArena&) = delete;
  HostArena& operator=(const HostArena&) = delete;

  int slot_count() const { return slot_count_; }
  uint64_t slot_bytes() const { return slot_bytes_; }
  uint64_t size_bytes() const { return slot_bytes_ * static_cast<uint64_t>(slot_count_); }
  std::span<std::byte> slot(int index) const;  // [slot_bytes]

 private:
  std::shared_ptr<HostMemory> memory_;
  uint64_t slot_bytes_;
  int slot_count_;
  std::byte* begin_ = nullptr;  // [slot_count, slot_bytes]
};

}  // namespace moraine::offload
