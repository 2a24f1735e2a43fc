#pragma once

#include <cstddef>
#include <cstdint>

namespace moraine::quant {

constexpr uint64_t kHugePageBytes = 2u << 20;

/// What `size_bytes` of mapped memory take: whole pages of 4 KiB, or whole huge pages from 2 MiB on. The largest number
/// if that overflows.
uint64_t mapped_bytes(uint64_t size_bytes);

/// Zeroed anonymous memory straight from the system, touched by nobody yet: mapped_bytes(size_bytes), on a border of
/// 4096 bytes. From 2 MiB on it lies on a huge page's border and asks for huge pages, down to its last byte: streaming
/// from small pages costs decode some 10 % (docs/kernels.md). Null if it can't be had or size_bytes is 0.
std::byte* map_memory(uint64_t size_bytes) noexcept;

/// Gives back what map_memory(size_bytes) returned.
void unmap_memory(std::byte* memory, uint64_t size_bytes) noexcept;

}  // namespace moraine::quant
